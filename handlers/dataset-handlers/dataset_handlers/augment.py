"""The random draws for one variation of an image."""

from __future__ import annotations

import msgspec
import numpy as np

from dscache_sdk.images import place

_DRAWS = 5


class Variation(msgspec.Struct, frozen=True):
    """The draws for one variation, as fractions: they apply at every resolution.

    Attributes:
        down, right: position of the crop's centre within its possible range, 0 to 1.
        flip: mirror horizontally.
        degrees: rotation, counter-clockwise.
        stops: change of exposure, in stops.
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
        """Draw a variation. It always draws five numbers, whatever the arguments, so that enabling
        rotation keeps the crops.

        Args:
            rng: source of the numbers.
            flip: probability of a horizontal flip.
            rotation: maximum rotation in degrees, in either direction.
            exposure: maximum change of exposure in stops, in either direction.
            centered: keep the crop's centre within the middle half of its range.
        """
        down, right, coin, turn, light = rng.random(_DRAWS).tolist()
        return cls(
            down=place(down, centered),
            right=place(right, centered),
            flip=coin < flip,
            degrees=(2 * turn - 1) * rotation,
            stops=(2 * light - 1) * exposure,
        )
