"""What is drawn for one variation of a picture."""

from __future__ import annotations

import msgspec
import numpy as np

from dscache_sdk.images import place

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
