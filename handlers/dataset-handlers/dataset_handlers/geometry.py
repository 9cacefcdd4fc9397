"""The part of an image that a variation shows, for images, masks and boxes alike."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from dataset_handlers.augment import Variation

Size = tuple[int, int]
Points = npt.NDArray[np.float64]


class Cut(msgspec.Struct, frozen=True):
    """A rectangle at any position and angle in an image, which becomes the result.

    Coordinates are x to the right and y down, in pixels; the first pixel spans 0 to 1.

    Attributes:
        size: (height, width) of the result.
        corner: x, y in the image of the result's upper left corner.
        degrees: counter-clockwise rotation of the image in the result.
        flip: finally mirror the result horizontally.
    """

    size: Size
    corner: tuple[float, float]
    degrees: float = 0.0
    flip: bool = False

    @property
    def direction(self) -> tuple[float, float]:
        """Cosine and sine of the angle from the result to the image."""
        angle = -math.radians(self.degrees)
        return math.cos(angle), math.sin(angle)

    def points(self, points: npt.NDArray[np.float64]) -> Points:
        """Map points x, y of the image, [n, 2], to the result; they may lie outside it."""
        cosine, sine = self.direction
        x, y = (points - np.array(self.corner)).T
        across, down = cosine * x - sine * y, sine * x + cosine * y
        return np.stack([self.size[1] - across if self.flip else across, down], axis=1)


def cut_for(image_size: Size, crop_size: Size | None, variation: Variation) -> Cut:
    """The cut of a variation in an image.

    Its centre is chosen so that the rotated cut lies entirely inside the image. Along an axis where
    that is impossible (such as a crop as large as the image), the cut is centred and extends beyond
    the image; `pixels.take` fills that area.

    Args:
        image_size: (height, width) of the image.
        crop_size: (height, width) of the result; None: the image's.
        variation: its random draws.

    Raises:
        ValueError: the crop is larger than the image.
    """
    size = crop_size or image_size
    if size[0] > image_size[0] or size[1] > image_size[1]:
        raise ValueError(
            f"a crop of {size[0]} x {size[1]} (height x width) does not fit this image of "
            f"{image_size[0]} x {image_size[1]}; set image_size or a smaller crop_size"
        )
    if variation.degrees:
        corner = _turned_corner(image_size, size, variation)
    else:
        top = min(int(variation.down * (image_size[0] - size[0] + 1)), image_size[0] - size[0])
        left = min(int(variation.right * (image_size[1] - size[1] + 1)), image_size[1] - size[1])
        corner = (float(left), float(top))
    return Cut((size[0], size[1]), corner, variation.degrees, variation.flip)


def _turned_corner(image_size: Size, size: Size, variation: Variation) -> tuple[float, float]:
    angle = -math.radians(variation.degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    height, width = size
    middle_y = _middle(image_size[0], height * abs(cosine) + width * abs(sine), variation.down)
    middle_x = _middle(image_size[1], height * abs(sine) + width * abs(cosine), variation.right)
    return (
        middle_x - (cosine * width + sine * height) / 2,
        middle_y - (cosine * height - sine * width) / 2,
    )


def _middle(room: int, extent: float, fraction: float) -> float:
    if extent >= room:
        return room / 2
    return extent / 2 + fraction * (room - extent)
