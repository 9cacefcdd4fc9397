"""Variations of a picture: crop, rotation, flip, exposure."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from dscache_sdk.images import place

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_DRAWS = 5


class Variation(msgspec.Struct, frozen=True):
    """What was drawn for one variation; no pixels in it, so it holds at every resolution.

    Attributes:
        down, right: place of the crop's centre within the room it has, 0 to 1.
        flip: mirror left and right.
        degrees: rotation, counter-clockwise.
        stops: change of exposure.
    """

    down: float
    right: float
    flip: bool = False
    degrees: float = 0.0
    stops: float = 0.0

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        flip: float = 0.0,
        rotation: float = 0.0,
        exposure: float = 0.0,
        centered: bool = True,
    ) -> Variation:
        """Draw a variation. The same five numbers are drawn whatever the arguments, so that
        switching on a rotation keeps the crops.

        Args:
            rng: source of the numbers.
            flip: probability of a flip.
            rotation: largest rotation in degrees, either way.
            exposure: largest change of exposure in stops, either way.
            centered: keep the crop's centre within the middle half of where it could be.
        """
        down, right, coin, turn, light = rng.random(_DRAWS).tolist()
        return cls(
            down=place(down, centered),
            right=place(right, centered),
            flip=coin < flip,
            degrees=(2 * turn - 1) * rotation,
            stops=(2 * light - 1) * exposure,
        )


def vary(picture: Picture, crop_size: tuple[int, int] | None, variation: Variation) -> Picture:
    """Make one variation of an RGB Pillow picture.

    Args:
        picture: the source; it is not changed.
        crop_size: (height, width) of the result; None keeps the picture's.
        variation: what to do.

    Raises:
        ValueError: the crop is larger than the picture.
    """
    from PIL import Image

    size = crop_size or (picture.height, picture.width)
    if size[0] > picture.height or size[1] > picture.width:
        raise ValueError(
            f"a crop of {size[0]} x {size[1]} (height x width) does not fit this picture of "
            f"{picture.height} x {picture.width}; set image_size or a smaller crop_size"
        )
    if variation.degrees:
        part = rotated_crop(picture, size, variation)
    else:
        part = _straight_crop(picture, size, variation)
    if variation.flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if variation.stops:
        part = part.point(exposure_table(variation.stops) * 3)
    return part


def _straight_crop(picture: Picture, size: tuple[int, int], variation: Variation) -> Picture:
    top = min(int(variation.down * (picture.height - size[0] + 1)), picture.height - size[0])
    left = min(int(variation.right * (picture.width - size[1] + 1)), picture.width - size[1])
    if size == (picture.height, picture.width):
        return picture
    return picture.crop((left, top, left + size[1], top + size[0]))


def rotated_crop(picture: Picture, size: tuple[int, int], variation: Variation) -> Picture:
    """Cut a rotated part out of a picture, without black corners.

    The part's centre is drawn from where the rotated part lies wholly inside the picture. Where
    there is no such place (a crop as large as the picture, say), the part is centred along that
    axis and what sticks out is filled by mirroring the picture at its edge.
    """
    from PIL import Image

    angle = -math.radians(variation.degrees)  # the map goes from the result to the source
    cosine, sine = math.cos(angle), math.sin(angle)
    height, width = size
    tall = height * abs(cosine) + width * abs(sine)
    broad = height * abs(sine) + width * abs(cosine)
    middle_y = _middle(picture.height, tall, variation.down)
    middle_x = _middle(picture.width, broad, variation.right)
    border_y = _border(picture.height, tall)
    border_x = _border(picture.width, broad)
    source = _mirrored(picture, border_y, border_x) if border_y or border_x else picture
    matrix = (
        cosine,
        sine,
        middle_x + border_x - (cosine * width + sine * height) / 2,
        -sine,
        cosine,
        middle_y + border_y - (cosine * height - sine * width) / 2,
    )
    return source.transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )


def _middle(room: int, extent: float, fraction: float) -> float:
    if extent >= room:
        return room / 2
    return extent / 2 + fraction * (room - extent)


def _border(room: int, extent: float) -> int:
    """Pixels that stick out on either side of a centred part; one more for rounding."""
    return 0 if extent <= room else math.ceil((extent - room) / 2) + 1


def _mirrored(picture: Picture, border_y: int, border_x: int) -> Picture:
    from PIL import Image

    border = ((border_y, border_y), (border_x, border_x), (0, 0))
    return Image.fromarray(np.pad(np.asarray(picture), border, mode="symmetric"))


@lru_cache(maxsize=512)
def exposure_table(stops: float) -> list[int]:
    """256 sRGB values after a change of exposure.

    One stop doubles the light, so the values are made linear first (IEC 61966-2-1), as a camera's
    exposure works; what gets brighter than white stays white.
    """
    values = np.arange(256) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear * 2.0**stops, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: list[int] = np.rint(encoded * 255).astype(int).tolist()
    return table
