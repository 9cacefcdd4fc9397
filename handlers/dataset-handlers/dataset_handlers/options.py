"""Options shared by several handlers, with their limits and help."""

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
    "stretch: exactly to image_size; cover: keep the proportions, crop the rest; contain: keep "
    "the proportions, pad with black."
)
IMAGE_SIZE_HELP = "Height and width to resize to first; null: keep the image's size."


def help_text(description: str) -> Meta:
    """The help of an option without limits."""
    return Meta(description=description)


class Splits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fractions of the samples for val and test."""

    val: Fraction = 0.1
    test: Fraction = 0.0

    def __post_init__(self) -> None:
        """Check that the fractions add up to at most 1."""
        if self.val + self.test > 1:
            raise ValueError("val and test add up to more than 1")


class RecordOptions(msgspec.Struct, kw_only=True):
    """The number of examples, and the encoding of their images."""

    batch_size: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        help_text("Planned examples per file; null: files of 64 to 256 MiB."),
    ] = None
    variations_per_sample: Annotated[
        int, Meta(ge=1, le=10000, description="Examples made of each sample.")
    ] = 1
    seed: Annotated[int, help_text("Seed of the random numbers for crops, flips, rotations ….")] = 0
    encoding: Annotated[
        Literal["jpeg", "png", "raw"], help_text("Encoding of images in the records.")
    ] = "jpeg"
    quality: Annotated[int, Meta(ge=1, le=100, description="JPEG quality.")] = 90


class ImageOptions(RecordOptions, kw_only=True):
    """Resizing and variations of an image with its masks and boxes."""

    image_size: Annotated[Size | None, help_text(IMAGE_SIZE_HELP)] = (1024, 1024)
    resize: Annotated[Resize, help_text(RESIZE_HELP)] = "stretch"
    crop_size: Annotated[
        Size | None,
        help_text("Height and width of a random crop after resizing; null: no crop."),
    ] = None
    random_crop_centered: Annotated[
        bool,
        help_text("true: keep the crop's centre within the middle half of its range."),
    ] = True
    flip: Annotated[float, Meta(ge=0, le=1, description="Probability of a horizontal flip.")] = 0.0
    rotation: Annotated[
        float, Meta(ge=0, le=180, description="Maximum rotation in degrees, in either direction.")
    ] = 0.0
    exposure: Annotated[
        float,
        Meta(ge=0, le=8, description="Maximum change of exposure in stops, in either direction."),
    ] = 0.0

    def __post_init__(self) -> None:
        """Check options that depend on each other."""
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
        """(height, width) of every example's image; None if it depends on the image."""
        return self.crop_size or self.image_size or (None, None)

    def draw(self, rng: np.random.Generator) -> Variation:
        """Draw one variation."""
        return Variation.draw(
            rng, self.flip, self.rotation, self.exposure, self.random_crop_centered
        )


def in_one_order(attributes: Iterable[str]) -> tuple[str, ...]:
    """Sort attribute names and remove duplicates.

    Their order does not affect the records, so it must not affect the dataset's key either.
    """
    return tuple(sorted(set(attributes)))
