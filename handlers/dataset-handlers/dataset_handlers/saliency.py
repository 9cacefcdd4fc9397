"""The `saliency` handler: images and masks, cropped and rotated alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dataset_handlers.geometry import cut_for
from dataset_handlers.options import (
    IMAGE_SIZE_HELP,
    ImageOptions,
    Size,
    Splits,
    help_text,
    in_one_order,
)
from dataset_handlers.pairs import find_pairs
from dataset_handlers.pixels import Pixels, expose, take
from dscache_sdk import DatasetHandler, Feature, Image, Sample, Text, hash_split
from dscache_sdk.images import open_mask, read_rgb, upright_size

Attribute = Literal["id", "image", "mask"]


class Saliency(DatasetHandler, name="saliency"):
    """Images with masks.

    Layouts: DUTS (``DUTS-TR/DUTS-TR-Image/*.jpg`` with ``DUTS-TR/DUTS-TR-Mask/*.png``, and
    ``DUTS-TE/…``), or ``images/**`` with ``masks/**`` of the same names.
    Splits: TR is train (part of it val, by option `splits`), TE is test. With ``images``: the
    folders ``images/train`` … if every image lies in one; otherwise the hash of the path decides.
    """

    class Options(ImageOptions, kw_only=True):
        """The options; each has its own help."""

        input_attributes: Annotated[
            tuple[Attribute, ...],
            Meta(
                min_length=1,
                description="Features to write: image, mask (one channel, PNG), id (the "
                "image's path).",
            ),
        ] = ("image", "mask")
        image_size: Annotated[Size | None, help_text(IMAGE_SIZE_HELP)] = (320, 320)
        mask_threshold: Annotated[
            Annotated[int, Meta(ge=1, le=255)] | None,
            help_text("Make masks black and white: white from this value on; null: unchanged."),
        ] = None
        splits: Annotated[
            Splits,
            help_text(
                "Fractions of val and test, chosen by the hash of the path; for DUTS-TR only val."
            ),
        ] = msgspec.field(default_factory=Splits)

        def __post_init__(self) -> None:
            """Check options that depend on each other; sort the attributes."""
            super().__post_init__()
            self.input_attributes = in_one_order(self.input_attributes)  # type: ignore[assignment]

    options: Options

    @cached_property
    def features(self) -> dict[str, Feature]:  # type: ignore[override]
        """The features named in `input_attributes`."""
        options = self.options
        available = {
            "id": Text(),
            "image": Image(options.encoding, (*options.final_size, 3), options.quality),
            "mask": Image("png", (*options.final_size, 1)),
        }
        return {name: available[name] for name in options.input_attributes}

    def samples(self) -> Iterator[Sample]:
        """Every image; its mask is in `data`. Raises RawDataError if one has no mask."""
        fractions = self.options.splits
        for pair in find_pairs(self.raw):
            split = pair.split or hash_split(pair.image, fractions.val, fractions.test)
            if pair.split == "train" and pair.image.startswith("DUTS-TR/"):
                split = hash_split(pair.image, fractions.val)
            yield Sample(pair.image, split, pair.mask, files=(pair.mask,))

    def load(self, sample: Sample) -> tuple[Pixels, Pixels]:
        """The upright, resized image [h, w, 3] and its mask [h, w], both uint8."""
        image, mask = self.raw / sample.id, self.raw / sample.data
        size, mask_size = upright_size(image), upright_size(mask)
        if size != mask_size:
            raise ValueError(
                f"the mask '{sample.data}' is {_shown(mask_size)} pixels, but its image "
                f"'{sample.id}' is {_shown(size)} (height x width); they must be equal"
            )
        target, fit = self.options.image_size, self.options.resize
        pixels = np.asarray(open_mask(mask, target, fit))
        if self.options.mask_threshold is not None:
            pixels = np.where(pixels >= self.options.mask_threshold, 255, 0).astype(np.uint8)
        return read_rgb(image, target, fit), pixels

    def example(self, loaded: Any, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """One variation: the same part of the image and its mask."""
        image, mask = loaded
        drawn = self.options.draw(rng)
        cut = cut_for(image.shape[:2], self.options.crop_size, drawn)
        values: dict[str, Any] = {
            "id": sample.id,
            "image": expose(take(image, cut), drawn.stops),
            "mask": take(mask, cut, nearest=True),
        }
        return {name: values[name] for name in self.options.input_attributes}


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
