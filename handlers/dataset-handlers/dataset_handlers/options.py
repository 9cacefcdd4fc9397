"""Options that several handlers have, with their limits and help."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dataset_handlers.augment import Variation
from dscache_sdk import OptionsError

Pixels = Annotated[int, Meta(ge=1, le=16384)]
Size = tuple[Pixels, Pixels]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Resize = Literal["stretch", "cover", "contain"]

RESIZE_HELP = (
    "stretch: exactly to image_size; cover: keep proportions, cut off the rest; contain: keep "
    "proportions, fill up with black."
)
IMAGE_SIZE_HELP = "Height and width to resize to first; null keeps each picture's own."


def help_text(description: str) -> Meta:
    """The help of an option that has no limits."""
    return Meta(description=description)


class Splits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fractions of the samples that are set apart."""

    val: Fraction = 0.1
    test: Fraction = 0.0

    def __post_init__(self) -> None:
        """Check that they are fractions of one whole."""
        if self.val + self.test > 1:
            raise ValueError("val and test together are more than 1")


class RecordOptions(msgspec.Struct, kw_only=True):
    """How many examples there are, and how their pictures are written."""

    batch_size: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        help_text("Planned examples per file; null: files of 64 to 256 MiB."),
    ] = None
    variations_per_sample: Annotated[
        int, Meta(ge=1, le=10000, description="Examples made of each sample.")
    ] = 1
    seed: Annotated[int, help_text("Another seed gives other crops, flips, rotations ...")] = 0
    encoding: Annotated[
        Literal["jpeg", "png", "raw"], help_text("How pictures are written into the records.")
    ] = "jpeg"
    quality: Annotated[int, Meta(ge=1, le=100, description="JPEG quality.")] = 90


class PictureOptions(RecordOptions, kw_only=True):
    """Resizing and variations of a picture, and of the masks and boxes that belong to it."""

    image_size: Annotated[Size | None, help_text(IMAGE_SIZE_HELP)] = (1024, 1024)
    resize: Annotated[Resize, help_text(RESIZE_HELP)] = "stretch"
    crop_size: Annotated[
        Size | None,
        help_text("Height and width of a random crop after resizing; null: no crop."),
    ] = None
    random_crop_centered: Annotated[
        bool,
        help_text("true: the crop's centre stays in the middle half of where it could be."),
    ] = True
    flip: Annotated[float, Meta(ge=0, le=1, description="Probability of a horizontal flip.")] = 0.0
    rotation: Annotated[
        float, Meta(ge=0, le=180, description="Largest rotation, degrees, either way.")
    ] = 0.0
    exposure: Annotated[
        float, Meta(ge=0, le=8, description="Largest change of exposure, stops, either way.")
    ] = 0.0

    def __post_init__(self) -> None:
        """Check what concerns more than one option."""
        if self.image_size is None or self.crop_size is None:
            return
        if any(crop > size for crop, size in zip(self.crop_size, self.image_size, strict=True)):
            raise OptionsError(
                "crop_size",
                f"{list(self.crop_size)} is larger than image_size {list(self.image_size)}; "
                "make the crop smaller or image_size larger",
            )

    @property
    def final_size(self) -> tuple[int | None, int | None]:
        """(height, width) of every example's picture; None where it depends on the picture."""
        return self.crop_size or self.image_size or (None, None)

    def draw(self, rng: np.random.Generator) -> Variation:
        """Draw one variation."""
        return Variation.draw(
            rng, self.flip, self.rotation, self.exposure, self.random_crop_centered
        )


def in_one_order(attributes: Iterable[str]) -> tuple[str, ...]:
    """Names of attributes, each once and sorted: their order changes no byte of a record, so it
    must not make another dataset either."""
    return tuple(sorted(set(attributes)))
