"""Which part of a picture a variation shows, as numbers: pictures, masks and boxes share it."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from dataset_handlers.augment import Variation

Size = tuple[int, int]
Points = npt.NDArray[np.float64]


class Cut(msgspec.Struct, frozen=True):
    """A rectangle that lies anywhere and at any angle in a picture, and becomes the result.

    Coordinates are x to the right and y down, in pixels; the first pixel spans 0 to 1.

    Attributes:
        size: (height, width) of the result.
        corner: x, y in the picture of the result's upper left corner.
        degrees: how far the picture is turned in the result, counter-clockwise.
        flip: the result is mirrored left to right at last.
    """

    size: Size
    corner: tuple[float, float]
    degrees: float = 0.0
    flip: bool = False

    @property
    def direction(self) -> tuple[float, float]:
        """Cosine and sine of the angle that leads from the result to the picture."""
        angle = -math.radians(self.degrees)
        return math.cos(angle), math.sin(angle)

    def points(self, points: npt.NDArray[np.float64]) -> Points:
        """Where points x, y of the picture, [n, 2], lie in the result (maybe outside)."""
        cosine, sine = self.direction
        x, y = (points - np.array(self.corner)).T
        across, down = cosine * x - sine * y, sine * x + cosine * y
        return np.stack([self.size[1] - across if self.flip else across, down], axis=1)


def cut_for(picture: Size, crop_size: Size | None, variation: Variation) -> Cut:
    """Place a variation in a picture.

    The part's centre is drawn from where the turned part lies wholly inside the picture. Where
    there is no such place (a crop as large as the picture, say), the part is centred along that
    axis and sticks out of the picture (see `pixels.take` for what is seen there).

    Args:
        picture: (height, width) of the picture.
        crop_size: (height, width) of the result; None: the picture's.
        variation: what was drawn.

    Raises:
        ValueError: the crop is larger than the picture.
    """
    size = crop_size or picture
    if size[0] > picture[0] or size[1] > picture[1]:
        raise ValueError(
            f"a crop of {size[0]} x {size[1]} (height x width) does not fit this picture of "
            f"{picture[0]} x {picture[1]}; set image_size or a smaller crop_size"
        )
    if variation.degrees:
        corner = _turned_corner(picture, size, variation)
    else:
        top = min(int(variation.down * (picture[0] - size[0] + 1)), picture[0] - size[0])
        left = min(int(variation.right * (picture[1] - size[1] + 1)), picture[1] - size[1])
        corner = (float(left), float(top))
    return Cut((size[0], size[1]), corner, variation.degrees, variation.flip)


def _turned_corner(picture: Size, size: Size, variation: Variation) -> tuple[float, float]:
    angle = -math.radians(variation.degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    height, width = size
    middle_y = _middle(picture[0], height * abs(cosine) + width * abs(sine), variation.down)
    middle_x = _middle(picture[1], height * abs(sine) + width * abs(cosine), variation.right)
    return (
        middle_x - (cosine * width + sine * height) / 2,
        middle_y - (cosine * height - sine * width) / 2,
    )


def _middle(room: int, extent: float, fraction: float) -> float:
    if extent >= room:
        return room / 2
    return extent / 2 + fraction * (room - extent)
