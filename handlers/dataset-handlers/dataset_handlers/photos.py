"""The `photos` handler: a folder of pictures, resized, cropped and varied."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dataset_handlers.augment import Variation, vary
from dscache_sdk import (
    ClassLabel,
    DatasetHandler,
    Feature,
    Image,
    OptionsError,
    RawDataError,
    Sample,
    Text,
    hash_split,
)
from dscache_sdk.images import open_rgb

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SPLIT_FOLDERS = ("train", "val", "test")

Attribute = Literal["id", "image", "label"]
Pixels = Annotated[int, Meta(ge=1, le=16384)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Splits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fractions of the pictures that are set apart."""

    val: Fraction = 0.1
    test: Fraction = 0.0


def _text(description: str) -> Meta:
    return Meta(description=description)


class Photos(DatasetHandler, name="photos"):
    """A folder of pictures, at any depth.

    Splits: when every picture lies below a top-level folder ``train``, ``val`` or ``test``, these
    folders are the splits; otherwise the hash of a picture's path decides (option `splits`).
    Labels: the name of the folder that a picture lies in.
    """

    class Options(msgspec.Struct, kw_only=True):
        """See each option's help."""

        input_attributes: Annotated[
            tuple[Attribute, ...],
            Meta(
                min_length=1,
                description="Features to write: image, id (the picture's path), label (the name "
                "of its folder).",
            ),
        ] = ("image",)
        batch_size: Annotated[
            Annotated[int, Meta(ge=1)] | None,
            _text("Planned examples per file; null: files of 64 to 256 MiB."),
        ] = None
        image_size: Annotated[
            tuple[Pixels, Pixels] | None,
            _text("Height and width to resize to first; null keeps each picture's own."),
        ] = (1024, 1024)
        resize: Annotated[
            Literal["stretch", "cover"],
            _text("stretch: exactly to image_size; cover: keep proportions, cut off the rest."),
        ] = "stretch"
        crop_size: Annotated[
            tuple[Pixels, Pixels] | None,
            _text("Height and width of a random crop after resizing; null: no crop."),
        ] = None
        random_crop_centered: Annotated[
            bool,
            _text("true: the crop's centre stays in the middle half of where it could be."),
        ] = True
        variations_per_sample: Annotated[
            int, Meta(ge=1, le=10000, description="Examples made of each picture.")
        ] = 1
        flip: Annotated[
            float, Meta(ge=0, le=1, description="Probability of a horizontal flip.")
        ] = 0.0
        rotation: Annotated[
            float, Meta(ge=0, le=180, description="Largest rotation, degrees, either way.")
        ] = 0.0
        exposure: Annotated[
            float, Meta(ge=0, le=8, description="Largest change of exposure, stops, either way.")
        ] = 0.0
        splits: Annotated[
            Splits, _text("Fractions set apart as val and test, by the hash of the path.")
        ] = msgspec.field(default_factory=Splits)
        seed: Annotated[int, _text("Another seed gives other crops, flips, rotations ...")] = 0
        encoding: Annotated[
            Literal["jpeg", "png", "raw"], _text("How pictures are written into the records.")
        ] = "jpeg"
        quality: Annotated[int, Meta(ge=1, le=100, description="JPEG quality.")] = 90

        def __post_init__(self) -> None:
            """Check what concerns more than one option; order the attributes."""
            # Their order changes no byte, so it must not make another dataset either.
            self.input_attributes = tuple(sorted(set(self.input_attributes)))
            if self.splits.val + self.splits.test > 1:
                raise OptionsError("splits", "val and test together are more than 1")
            if self.image_size is None or self.crop_size is None:
                return
            if any(crop > size for crop, size in zip(self.crop_size, self.image_size, strict=True)):
                raise OptionsError(
                    "crop_size",
                    f"{list(self.crop_size)} is larger than image_size {list(self.image_size)}; "
                    "make the crop smaller or image_size larger",
                )

    options: Options

    @cached_property
    def features(self) -> dict[str, Feature]:  # type: ignore[override]
        """The features that `input_attributes` asks for."""
        size = self.options.crop_size or self.options.image_size or (None, None)
        makers: dict[str, Any] = {
            "id": Text,
            "image": lambda: Image(self.options.encoding, (*size, 3), self.options.quality),
            "label": lambda: ClassLabel(self._classes),
        }
        return {name: makers[name]() for name in self.options.input_attributes}

    @cached_property
    def _pictures(self) -> list[str]:
        """Relative paths of all pictures, sorted. Raises RawDataError when there are none."""
        paths = [path for path in self.raw.files("**/*") if path.lower().endswith(SUFFIXES)]
        if not paths:
            kinds = " ".join(SUFFIXES)
            raise RawDataError(f"there are no pictures ({kinds}) under {self.raw.root}")
        return paths

    @cached_property
    def _has_split_folders(self) -> bool:
        parts = (PurePosixPath(path).parts for path in self._pictures)
        return all(len(part) > 1 and part[0] in SPLIT_FOLDERS for part in parts)

    @cached_property
    def _classes(self) -> list[str]:
        """Names of the folders, sorted: their places are the labels."""
        folders = set()
        for path in self._pictures:
            folder = self._class_folder(path)
            if not folder:
                raise RawDataError(
                    f"the picture '{path}' lies in no folder of a class; the input attribute "
                    f"'label' needs one folder per class under {self.raw.root}"
                )
            folders.add(folder)
        return sorted(folders)

    def _class_folder(self, path: str) -> str:
        folders = PurePosixPath(path).parts[1 if self._has_split_folders else 0 : -1]
        return folders[-1] if folders else ""

    def samples(self) -> Iterator[Sample]:
        """Every picture."""
        fractions = self.options.splits
        for path in self._pictures:
            if self._has_split_folders:
                split = path.partition("/")[0]
            else:
                split = hash_split(path, fractions.val, fractions.test)
            yield Sample(path, split)

    def load(self, sample: Sample) -> Any:
        """The picture, upright, RGB, resized."""
        return open_rgb(self.raw / sample.id, self.options.image_size, self.options.resize)

    def example(self, loaded: Any, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """One variation of the picture."""
        options = self.options
        drawn = Variation.draw(
            rng, options.flip, options.rotation, options.exposure, options.random_crop_centered
        )
        values: dict[str, Any] = {"id": sample.id, "label": self._class_folder(sample.id)}
        if "image" in options.input_attributes:
            values["image"] = vary(loaded, options.crop_size, drawn)
        return {name: values[name] for name in options.input_attributes}
