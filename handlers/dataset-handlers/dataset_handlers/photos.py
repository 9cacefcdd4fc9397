"""The `photos` handler: a folder of images, resized, cropped and augmented."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dataset_handlers.files import IMAGE_SUFFIXES, images_in, split_folders
from dataset_handlers.geometry import cut_for
from dataset_handlers.options import ImageOptions, Splits, help_text, in_one_order
from dataset_handlers.pixels import expose, take
from dscache_sdk import (
    ClassLabel,
    DatasetHandler,
    Feature,
    Image,
    RawDataError,
    Sample,
    Text,
    hash_split,
)
from dscache_sdk.images import read_rgb

Attribute = Literal["id", "image", "label"]


class Photos(DatasetHandler, name="photos"):
    """A folder of images, at any depth.

    If every image lies below a top-level folder ``train``, ``val`` or ``test``, that folder is the
    split; otherwise the hash of the image's path decides (option `splits`). An image's label is the
    name of its folder.
    """

    class Options(ImageOptions, kw_only=True):
        """The options; each has its own help."""

        input_attributes: Annotated[
            tuple[Attribute, ...],
            Meta(
                min_length=1,
                description="Features to write: image, id (the image's path), label (the name "
                "of its folder).",
            ),
        ] = ("image",)
        splits: Annotated[
            Splits, help_text("Fractions of val and test, chosen by the hash of the path.")
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
        makers: dict[str, Any] = {
            "id": Text,
            "image": lambda: Image(options.encoding, (*options.final_size, 3), options.quality),
            "label": lambda: ClassLabel(self._classes),
        }
        return {name: makers[name]() for name in options.input_attributes}

    @cached_property
    def _images(self) -> list[str]:
        """Relative paths of all images, sorted. Raises RawDataError if there are none."""
        paths = images_in(self.raw, "**/*")
        if not paths:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise RawDataError(f"there are no images ({kinds}) under {self.raw.root}")
        return paths

    @cached_property
    def _has_split_folders(self) -> bool:
        return split_folders(self._images)

    @cached_property
    def _classes(self) -> list[str]:
        """Names of the folders, sorted; the labels are their indices."""
        folders = set()
        for path in self._images:
            folder = self._class_folder(path)
            if not folder:
                raise RawDataError(
                    f"the image '{path}' is in no class folder; the input attribute 'label' needs "
                    f"one folder per class under {self.raw.root}"
                )
            folders.add(folder)
        return sorted(folders)

    def _class_folder(self, path: str) -> str:
        folders = PurePosixPath(path).parts[1 if self._has_split_folders else 0 : -1]
        return folders[-1] if folders else ""

    def samples(self) -> Iterator[Sample]:
        """Every image."""
        fractions = self.options.splits
        for path in self._images:
            if self._has_split_folders:
                split = path.partition("/")[0]
            else:
                split = hash_split(path, fractions.val, fractions.test)
            yield Sample(path, split)

    def load(self, sample: Sample) -> Any:
        """The upright, resized image in RGB: uint8 [height, width, 3]."""
        return read_rgb(self.raw / sample.id, self.options.image_size, self.options.resize)

    def example(self, loaded: Any, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """One variation of the image."""
        options = self.options
        drawn = options.draw(rng)
        values: dict[str, Any] = {"id": sample.id, "label": self._class_folder(sample.id)}
        if "image" in options.input_attributes:
            cut = cut_for(loaded.shape[:2], options.crop_size, drawn)
            values["image"] = expose(take(loaded, cut), drawn.stops)
        return {name: values[name] for name in options.input_attributes}
