"""Reading, resizing and cropping pictures and masks. Needs Pillow: ``dscache-sdk[image]``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Size = tuple[int, int]
Fit = Literal["stretch", "cover", "contain"]

_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)  # EXIF: the picture lies on its side
_ORIENTATION_TAG = 0x0112
_DRAFT_FACTOR = 2  # decode JPEG no smaller than this times the target; Pillow's thumbnail uses it


def open_rgb(
    path: str | os.PathLike[str], size: Size | None = None, fit: Fit = "stretch"
) -> Picture:
    """Read a picture of any kind as an upright RGB Pillow picture.

    EXIF rotation is applied, transparency is laid over white, grey and CMYK become RGB, 16-bit
    grey keeps its upper eight bits.

    Args:
        path: the file.
        size: (height, width) to resize to; None keeps the picture's own.
        fit: "stretch" to exactly that size, "cover": keep the proportions and cut off what is
            too much, equally on both sides, or "contain": keep them and fill up with black.

    Raises:
        OSError: the file is missing, cut off or not a picture.
        ValueError: its pixels have no defined range (modes I and F).
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        if size is not None:
            _draft(opened, size)
        picture: Picture = _to_rgb(ImageOps.exif_transpose(opened))
    return picture if size is None else resize(picture, size, fit)


def read_rgb(
    path: str | os.PathLike[str], size: Size | None = None, fit: Fit = "stretch"
) -> npt.NDArray[np.uint8]:
    """`open_rgb` as uint8 [height, width, 3]."""
    return np.array(open_rgb(path, size, fit))


def resize(picture: Picture, size: Size, fit: Fit = "stretch") -> Picture:
    """Resize an RGB picture to (height, width), antialiased (bicubic); see `open_rgb`."""
    from PIL import Image

    return _resized(picture, size, fit, Image.Resampling.BICUBIC)


def _resized(picture: Picture, size: Size, fit: Fit, method: Any) -> Picture:
    from PIL import Image

    if (picture.height, picture.width) == tuple(size):
        return picture
    how = fitting((picture.height, picture.width), size, fit)
    gap = None if fit == "cover" else 3.0
    target = (how.width, how.height)
    part = picture.resize(target, method, how.box, reducing_gap=gap)
    if (how.height, how.width) == tuple(size):
        return part
    whole = Image.new(picture.mode, (size[1], size[0]))
    whole.paste(part, (how.left, how.top))
    return whole


class Fitting(NamedTuple):
    """How a picture is resized: this part of it becomes that rectangle of the result.

    Attributes:
        box: left, top, right, bottom of the part, in pixels of the picture (fractions too).
        top, left, height, width: the rectangle, in pixels of the result; around it is black.
    """

    box: tuple[float, float, float, float]
    top: int
    left: int
    height: int
    width: int

    def points(self, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Where points x, y of the picture, [..., 2], lie in the result (maybe outside)."""
        left, top, right, bottom = self.box
        scale = np.array([self.width / (right - left), self.height / (bottom - top)])
        moved: npt.NDArray[np.float64] = (points - np.array([left, top])) * scale
        moved += np.array([self.left, self.top])
        return moved


def fitting(source: Size, target: Size, fit: Fit) -> Fitting:
    """Decide how a picture of (height, width) `source` becomes one of `target`; see `open_rgb`."""
    (rows, columns), (height, width) = source, target
    whole = (0.0, 0.0, float(columns), float(rows))
    if fit == "cover":
        kept_width = min(columns, rows * width / height)
        kept_height = min(rows, columns * height / width)
        left, top = (columns - kept_width) / 2, (rows - kept_height) / 2
        return Fitting((left, top, left + kept_width, top + kept_height), 0, 0, height, width)
    if fit == "contain":
        scale = min(height / rows, width / columns)
        inner_height = min(height, max(1, round(rows * scale)))
        inner_width = min(width, max(1, round(columns * scale)))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        return Fitting(whole, top, left, inner_height, inner_width)
    return Fitting(whole, 0, 0, height, width)


def open_mask(
    path: str | os.PathLike[str], size: Size | None = None, fit: Fit = "stretch"
) -> Picture:
    """Read a mask as an upright Pillow picture of one channel, 8 bits.

    Resizing takes the nearest pixel, so no values come up that the file does not have. Bits become
    0 and 255, colours their brightness; 16 bits keep the upper eight; transparency is ignored.

    Args:
        path: the file.
        size, fit: as for `open_rgb`: a picture and its mask stay in register.

    Raises:
        OSError: the file is missing, cut off or not a picture.
        ValueError: its pixels have no defined range (modes I and F).
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        mask: Picture = _to_grey(ImageOps.exif_transpose(opened))
    return mask if size is None else resize_mask(mask, size, fit)


def resize_mask(mask: Picture, size: Size, fit: Fit = "stretch") -> Picture:
    """Resize a mask to (height, width), taking the nearest pixel; see `open_mask`."""
    from PIL import Image

    return _resized(mask, size, fit, Image.Resampling.NEAREST)


def upright_size(path: str | os.PathLike[str]) -> Size:
    """(height, width) of a picture after its EXIF rotation, without decoding it.

    Raises:
        OSError: the file is missing or not a picture.
    """
    from PIL import Image

    with Image.open(path) as opened:
        if opened.getexif().get(_ORIENTATION_TAG) in _SWAPPING_ORIENTATIONS:
            return opened.width, opened.height
        return opened.height, opened.width


def crop(
    picture: npt.NDArray[Any], size: Size, rng: np.random.Generator, *, centered: bool = False
) -> npt.NDArray[Any]:
    """Cut a random part out of an array [height, width, …].

    Two numbers are drawn whatever the sizes, and they are fractions of the room there is: the
    same rng gives the same part at every resolution.

    Args:
        picture: the array; a view of it is returned.
        size: (height, width) of the part.
        rng: source of the place.
        centered: keep the part's centre near the picture's (see `place`).

    Raises:
        ValueError: the part is larger than the picture.
    """
    vertical, horizontal = rng.random(2)
    height, width = picture.shape[:2]
    if size[0] > height or size[1] > width:
        raise ValueError(f"a crop of {tuple(size)} does not fit a picture of {(height, width)}")
    top = int((height - size[0] + 1) * place(vertical, centered))
    left = int((width - size[1] + 1) * place(horizontal, centered))
    return picture[top : top + size[0], left : left + size[1]]


def place(fraction: float, centered: bool) -> float:
    """Where in the room there is: anywhere (0..1), or within its middle half when centered."""
    return 0.25 + fraction / 2 if centered else fraction


def _draft(picture: Any, size: Size) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where the target is much smaller (1.4 times faster)."""
    height, width = size
    if picture.getexif().get(_ORIENTATION_TAG) in _SWAPPING_ORIENTATIONS:
        height, width = width, height
    picture.draft(None, (width * _DRAFT_FACTOR, height * _DRAFT_FACTOR))


def _to_rgb(picture: Any) -> Any:
    from PIL import Image

    if picture.mode == "RGB":
        return picture
    picture = _eight_bits(picture)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _to_grey(picture: Any) -> Any:
    return picture if picture.mode == "L" else _eight_bits(picture).convert("L")


def _eight_bits(picture: Any) -> Any:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {picture.mode} have no defined range; save the picture with 8 or "
            "16 bits per channel"
        )
    return picture
