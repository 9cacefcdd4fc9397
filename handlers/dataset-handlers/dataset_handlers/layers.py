"""Compositing a cut-out over a background."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from dscache_sdk.pillow import opened

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Pixels = npt.NDArray[np.uint8]

_DRAWS = 6


class Placement(msgspec.Struct, frozen=True):
    """The draws for one variation, as fractions: they apply at every resolution.

    Attributes:
        background: position in the list of backgrounds, 0 to 1.
        down, right: position of the cut-out within its possible range, 0 to 1.
        scale: share of the image's height or width, whichever the cut-out reaches first.
        flip, background_flip: mirror horizontally.
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
        """Draw a placement. It always draws six numbers, whatever the arguments.

        Args:
            rng: source of the numbers.
            scale: minimum and maximum share.
            position: 0: centred; 1: up to the edges.
            flip, background_flip: probabilities.
        """
        background, down, right, size, coin, background_coin = rng.random(_DRAWS).tolist()
        return cls(
            background=background,
            down=0.5 + (down - 0.5) * position,
            right=0.5 + (right - 0.5) * position,
            scale=scale[0] + size * (scale[1] - scale[0]),
            flip=coin < flip,
            background_flip=background_coin < background_flip,
        )


def read_cutout(path: str | os.PathLike[str]) -> PilImage:
    """Read an image with transparency as RGBA, without its fully transparent margins.

    Raises:
        OSError: the file is missing, truncated or not an image.
        ValueError: it has no transparency, or is fully transparent.
    """
    from PIL import ImageOps

    with opened(path) as file:
        if not file.has_transparency_data:
            raise ValueError(
                f"an image of mode {file.mode} has no transparency, so it is not a cut-out; "
                "save it with an alpha channel"
            )
        image: PilImage = ImageOps.exif_transpose(file).convert("RGBA")
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ValueError("the image is fully transparent")
    return image.crop(box)


def lay_over(cutout: PilImage, background: Pixels, placed: Placement) -> tuple[Pixels, Pixels]:
    """Lay a cut-out over a background of the result's size.

    Args:
        cutout: RGBA; it is not changed.
        background: uint8 [height, width, 3]; it is not changed.
        placed: its position and size.

    Returns:
        The image, uint8 [height, width, 3], and the matte: the cut-out's share of every pixel,
        uint8 [height, width]. A cut-out larger than the image is cropped.
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


def _resized(cutout: PilImage, height: int, width: int, placed: Placement) -> Pixels:
    from PIL import Image

    factor = placed.scale * min(height / cutout.height, width / cutout.width)
    size = max(1, round(cutout.width * factor)), max(1, round(cutout.height * factor))
    # Pillow weights colours by alpha here, so hidden colours do not bleed into the edges.
    pixels: Pixels = np.asarray(cutout.resize(size, Image.Resampling.BICUBIC))
    return pixels[:, ::-1] if placed.flip else pixels


def _overlap(start: int, extent: int, room: int) -> tuple[slice, slice]:
    """The slice of the room that an extent covers, and the slice of the extent that is visible."""
    first, last = max(start, 0), min(start + extent, room)
    return slice(first, last), slice(first - start, last - start)


def _blend(layer: Pixels, below: Pixels) -> Pixels:
    """Blend by alpha in integers with rounding: the same bytes on every machine."""
    alpha = layer[:, :, 3:].astype(np.uint32)
    mixed = layer[:, :, :3] * alpha + below * (255 - alpha)
    blended: Pixels = ((mixed + 127) // 255).astype(np.uint8)
    return blended
