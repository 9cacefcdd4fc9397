"""Reading and cropping pictures. Needs Pillow: ``dscache-sdk[image]``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Size = tuple[int, int]
Fit = Literal["stretch", "cover"]

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
        fit: "stretch" to exactly that size, or "cover": keep the proportions and cut off what is
            too much, equally on both sides.

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
    """Resize a Pillow picture to (height, width), antialiased (bicubic); see `open_rgb`."""
    from PIL import Image, ImageOps

    target = (size[1], size[0])
    if picture.size == target:
        return picture
    if fit == "cover":
        return ImageOps.fit(picture, target, Image.Resampling.BICUBIC)
    return picture.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)


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
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {picture.mode} have no defined range; save the picture with 8 or "
            "16 bits per channel"
        )
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")
