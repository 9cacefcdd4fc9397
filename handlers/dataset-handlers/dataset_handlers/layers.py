"""Laying a cut-out over a background."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Pixels = npt.NDArray[np.uint8]

_DRAWS = 6


class Placement(msgspec.Struct, frozen=True):
    """What was drawn for one variation; no pixels in it, so it holds at every resolution.

    Attributes:
        background: place in the list of backgrounds, 0 to 1.
        down, right: place of the cut-out within the room it has, 0 to 1.
        scale: share of the picture's height or width, whichever the cut-out reaches first.
        flip, background_flip: mirror left and right.
    """

    background: float
    down: float
    right: float
    scale: float
    flip: bool = False
    background_flip: bool = False

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        scale: tuple[float, float],
        position: float = 1.0,
        flip: float = 0.0,
        background_flip: float = 0.0,
    ) -> Placement:
        """Draw a placement. The same six numbers are drawn whatever the arguments.

        Args:
            rng: source of the numbers.
            scale: smallest and largest share.
            position: 0 leaves the cut-out in the middle, 1 lets it go up to the edges.
            flip, background_flip: probabilities.
        """
        background, down, right, size, coin, other = rng.random(_DRAWS).tolist()
        return cls(
            background=background,
            down=0.5 + (down - 0.5) * position,
            right=0.5 + (right - 0.5) * position,
            scale=scale[0] + size * (scale[1] - scale[0]),
            flip=coin < flip,
            background_flip=other < background_flip,
        )


def read_cutout(path: str | os.PathLike[str]) -> Picture:
    """Read a picture with transparency as RGBA, without its wholly transparent margins.

    Raises:
        OSError: the file is missing, cut off or not a picture.
        ValueError: it has no transparency, or nothing else.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        if not opened.has_transparency_data:
            raise ValueError(
                f"a picture of mode {opened.mode} has no transparency, so nothing is cut out; "
                "save it with an alpha channel"
            )
        picture: Picture = ImageOps.exif_transpose(opened).convert("RGBA")
    box = picture.getchannel("A").getbbox()
    if box is None:
        raise ValueError("the picture is wholly transparent")
    return picture.crop(box)


def lay_over(cutout: Picture, background: Pixels, placed: Placement) -> tuple[Pixels, Pixels]:
    """Lay a cut-out over a background of the result's size.

    Args:
        cutout: RGBA; it is not changed.
        background: uint8 [height, width, 3]; it is not changed.
        placed: where and how large.

    Returns:
        The picture, uint8 [height, width, 3], and the matte: the cut-out's share of every pixel,
        uint8 [height, width]. What is larger than the picture sticks out of it.
    """
    image = np.array(background[:, ::-1] if placed.background_flip else background)
    height, width = image.shape[:2]
    layer = _resized(cutout, height, width, placed)
    top = round((height - layer.shape[0]) * placed.down)
    left = round((width - layer.shape[1]) * placed.right)
    rows, layer_rows = _overlap(top, layer.shape[0], height)
    columns, layer_columns = _overlap(left, layer.shape[1], width)
    part = layer[layer_rows, layer_columns]
    alpha = np.zeros((height, width), np.uint8)
    alpha[rows, columns] = part[:, :, 3]
    image[rows, columns] = _blend(part, image[rows, columns])
    return image, alpha


def _resized(cutout: Picture, height: int, width: int, placed: Placement) -> Pixels:
    from PIL import Image

    factor = placed.scale * min(height / cutout.height, width / cutout.width)
    size = max(1, round(cutout.width * factor)), max(1, round(cutout.height * factor))
    # Pillow weighs colours by their alpha here, so hidden colours do not bleed into the edges.
    pixels: Pixels = np.asarray(cutout.resize(size, Image.Resampling.BICUBIC))
    return pixels[:, ::-1] if placed.flip else pixels


def _overlap(start: int, extent: int, room: int) -> tuple[slice, slice]:
    """Where an extent lies within the room, and which part of it that is."""
    first, last = max(start, 0), min(start + extent, room)
    return slice(first, last), slice(first - start, last - start)


def _blend(layer: Pixels, below: Pixels) -> Pixels:
    """Mix by alpha in whole numbers, rounded: the same everywhere."""
    alpha = layer[:, :, 3:].astype(np.uint32)
    mixed = layer[:, :, :3] * alpha + below * (255 - alpha)
    blended: Pixels = ((mixed + 127) // 255).astype(np.uint8)
    return blended
