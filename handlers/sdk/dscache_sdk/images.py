"""Read, resize and crop images and masks. Needs Pillow: ``dscache-sdk[image]``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dscache_sdk.pillow import opened

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Size = tuple[int, int]
Fit = Literal["stretch", "cover", "contain"]

_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)  # EXIF: rotated by 90 degrees
_ORIENTATION_TAG = 0x0112
_DRAFT_FACTOR = 2  # decode JPEG at no less than twice the target size, as Pillow's thumbnail does


def open_rgb(
    path: str | os.PathLike[str], size: Size | None = None, fit: Fit = "stretch"
) -> PilImage:
    """Read an image of any kind as an upright RGB Pillow image.

    EXIF rotation is applied, transparency is composited over white, greyscale and CMYK become RGB,
    16-bit greyscale keeps its upper eight bits.

    Args:
        path: the file.
        size: (height, width) to resize to; None: keep the size.
        fit: "stretch" to exactly that size; "cover": keep the proportions and crop the excess
            equally on both sides; "contain": keep the proportions and pad with black.

    Raises:
        OSError: the file is missing, truncated or not an image.
        ValueError: its pixels have no defined range (modes I and F).
    """
    from PIL import ImageOps

    with opened(path) as file:
        if size is not None:
            _draft(file, size)
        image: PilImage = _to_rgb(ImageOps.exif_transpose(file))
    return image if size is None else resize(image, size, fit)


def read_rgb(
    path: str | os.PathLike[str], size: Size | None = None, fit: Fit = "stretch"
) -> npt.NDArray[np.uint8]:
    """`open_rgb` as uint8 [height, width, 3]."""
    return np.array(open_rgb(path, size, fit))


def resize(image: PilImage, size: Size, fit: Fit = "stretch") -> PilImage:
    """Resize an RGB image to (height, width), antialiased (bicubic); see `open_rgb`."""
    from PIL import Image

    return _resized(image, size, fit, Image.Resampling.BICUBIC)


def _resized(image: PilImage, size: Size, fit: Fit, method: Any) -> PilImage:
    from PIL import Image

    if (image.height, image.width) == tuple(size):
        return image
    place = fitting((image.height, image.width), size, fit)
    gap = None if fit == "cover" else 3.0
    target = (place.width, place.height)
    part = image.resize(target, method, place.box, reducing_gap=gap)
    if (place.height, place.width) == tuple(size):
        return part
    whole = Image.new(image.mode, (size[1], size[0]))
    whole.paste(part, (place.left, place.top))
    return whole


class Fitting(NamedTuple):
    """How an image is resized: a part of it becomes a rectangle of the result.

    Attributes:
        box: left, top, right, bottom of the part, in pixels of the image (may be fractions).
        top, left, height, width: the rectangle, in pixels of the result; the rest is black.
    """

    box: tuple[float, float, float, float]
    top: int
    left: int
    height: int
    width: int

    def points(self, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Map points x, y of the image, [..., 2], to the result; they may lie outside it."""
        left, top, right, bottom = self.box
        scale = np.array([self.width / (right - left), self.height / (bottom - top)])
        moved: npt.NDArray[np.float64] = (points - np.array([left, top])) * scale
        moved += np.array([self.left, self.top])
        return moved


def fitting(source: Size, target: Size, fit: Fit) -> Fitting:
    """How an image of size `source` (height, width) becomes one of size `target`."""
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
) -> PilImage:
    """Read a mask as an upright Pillow image of one channel, 8 bits.

    Resizing takes the nearest pixel, so it creates no new values. 1-bit images become 0 and 255,
    colours become their brightness, 16 bits keep the upper eight; transparency is ignored.

    Args:
        path: the file.
        size, fit: as for `open_rgb`; an image and its mask stay aligned.

    Raises:
        OSError: the file is missing, truncated or not an image.
        ValueError: its pixels have no defined range (modes I and F).
    """
    from PIL import ImageOps

    with opened(path) as file:
        mask: PilImage = _to_grey(ImageOps.exif_transpose(file))
    return mask if size is None else resize_mask(mask, size, fit)


def resize_mask(mask: PilImage, size: Size, fit: Fit = "stretch") -> PilImage:
    """Resize a mask to (height, width), taking the nearest pixel; see `open_mask`."""
    from PIL import Image

    return _resized(mask, size, fit, Image.Resampling.NEAREST)


def upright_size(path: str | os.PathLike[str]) -> Size:
    """(height, width) of an image after its EXIF rotation, without decoding it.

    Raises:
        OSError, ValueError: the file is missing or not an image.
    """
    with opened(path) as file:
        if file.getexif().get(_ORIENTATION_TAG) in _SWAPPING_ORIENTATIONS:
            return file.width, file.height
        return file.height, file.width


def crop(
    picture: npt.NDArray[Any], size: Size, rng: np.random.Generator, *, centered: bool = False
) -> npt.NDArray[Any]:
    """Cut a random part out of an array [height, width, …].

    It draws two fractions whatever the sizes, so the same rng gives the same part at every
    resolution.

    Args:
        picture: the array; a view of it is returned.
        size: (height, width) of the part.
        rng: source of the random position.
        centered: keep the part's centre near the image's (see `place`).

    Raises:
        ValueError: the part is larger than the image.
    """
    vertical, horizontal = rng.random(2)
    height, width = picture.shape[:2]
    if size[0] > height or size[1] > width:
        raise ValueError(f"a crop of {tuple(size)} does not fit an image of {(height, width)}")
    top = int((height - size[0] + 1) * place(vertical, centered))
    left = int((width - size[1] + 1) * place(horizontal, centered))
    return picture[top : top + size[0], left : left + size[1]]


def place(fraction: float, centered: bool) -> float:
    """Position within a range: `fraction` (0..1), or with `centered` within its middle half."""
    return 0.25 + fraction / 2 if centered else fraction


def _draft(image: Any, size: Size) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 if the target is much smaller (1.4 times as fast)."""
    height, width = size
    if image.getexif().get(_ORIENTATION_TAG) in _SWAPPING_ORIENTATIONS:
        height, width = width, height
    image.draft(None, (width * _DRAFT_FACTOR, height * _DRAFT_FACTOR))


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode == "RGB":
        return image
    image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_grey(image: Any) -> Any:
    return image if image.mode == "L" else _eight_bits(image).convert("L")


def _eight_bits(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {image.mode} have no defined range; save the image with 8 or "
            "16 bits per channel"
        )
    return image
