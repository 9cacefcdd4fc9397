"""The `coco` handler: pictures with the boxes, classes and masks of COCO annotations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dataset_handlers import coco_index
from dataset_handlers.coco_shapes import Seen, Shape, paint, seen_through, shapes_of
from dataset_handlers.geometry import cut_for
from dataset_handlers.options import (
    IMAGE_SIZE_HELP,
    RESIZE_HELP,
    PictureOptions,
    Resize,
    Size,
    help_text,
    in_one_order,
)
from dataset_handlers.pixels import Pixels, expose, take
from dscache_sdk import (
    BBoxes,
    ClassLabels,
    DatasetHandler,
    Feature,
    Image,
    OptionsError,
    RawDataError,
    Sample,
    Tensor,
    Text,
)
from dscache_sdk.images import read_rgb, upright_size

Attribute = Literal["boxes", "id", "image", "is_crowd", "labels", "mask"]

_MAX_CLASSES = 255  # beside the background, in a mask of 8 bits


class Coco(DatasetHandler, name="coco"):
    """Pictures with COCO annotations.

    Layouts: ``annotations/instances_train2017.json`` with ``train2017/`` (or
    ``images/train2017/``), any years and splits; or ``train/_annotations.coco.json`` with the
    pictures beside it. Splits: the letters of that name (``train2017``: train; ``valid``: val).
    """

    class Options(PictureOptions, kw_only=True):
        """See each option's help."""

        input_attributes: Annotated[
            tuple[Attribute, ...],
            Meta(
                min_length=1,
                description="Features to write: image, boxes, labels and is_crowd (one per box), "
                "mask (one channel, PNG), id (the picture's path).",
            ),
        ] = ("boxes", "image", "labels")
        image_size: Annotated[Size | None, help_text(IMAGE_SIZE_HELP)] = (640, 640)
        resize: Annotated[Resize, help_text(RESIZE_HELP)] = "contain"
        categories: Annotated[
            Annotated[tuple[str, ...], Meta(min_length=1)] | None,
            help_text("Names of the categories to take; null: all."),
        ] = None
        min_area: Annotated[
            float,
            Meta(ge=0, description="Leave out what is smaller in the file, in square pixels."),
        ] = 0.0
        min_visible: Annotated[
            float,
            Meta(
                ge=0,
                le=1,
                description="Share of a box that resizing and cropping must leave, else the thing "
                "is left out; 0: anything.",
            ),
        ] = 0.0
        crowd: Annotated[
            bool, help_text("true: groups of things too (is_crowd tells which they are).")
        ] = False
        keep_empty: Annotated[
            bool, help_text("true: also pictures in which nothing is annotated, or left.")
        ] = False
        mask: Annotated[
            Literal["classes", "instances"],
            help_text(
                "What the values of a mask are. classes: label + 1; instances: place of the box "
                "+ 1; 0 is background."
            ),
        ] = "classes"

        def __post_init__(self) -> None:
            """Check what concerns more than one option; order the names."""
            super().__post_init__()
            self.input_attributes = in_one_order(self.input_attributes)  # type: ignore[assignment]
            if self.categories is not None:
                self.categories = in_one_order(self.categories)

        @property
        def wanted(self) -> coco_index.Wanted:
            """Which annotations are taken."""
            outlines = "mask" in self.input_attributes or self.rotation > 0
            return coco_index.Wanted(self.categories, self.min_area, self.crowd, outlines)

    options: Options

    @cached_property
    def features(self) -> dict[str, Feature]:  # type: ignore[override]
        """The features that `input_attributes` asks for."""
        options = self.options
        makers: dict[str, Any] = {
            "boxes": BBoxes,
            "id": Text,
            "image": lambda: Image(options.encoding, (*options.final_size, 3), options.quality),
            "is_crowd": lambda: Tensor((None,), "int64"),
            "labels": lambda: ClassLabels(self._index[0]),
            "mask": self._mask_feature,
        }
        return {name: makers[name]() for name in options.input_attributes}

    def _mask_feature(self) -> Feature:
        count = len(self._index[0])
        if self.options.mask == "classes" and count > _MAX_CLASSES:
            raise OptionsError(
                "categories",
                f"{count} classes do not fit a mask of 8 bits; name at most {_MAX_CLASSES}, or "
                'write "mask": "instances"',
            )
        return Image("png", (*self.options.final_size, 1))

    @cached_property
    def _files(self) -> list[coco_index.CocoFile]:
        return coco_index.coco_files(self.raw)

    @cached_property
    def _index(self) -> tuple[list[str], list[Sample]]:
        """Names of the classes, and all samples: the files are read once and not kept."""
        wanted = self.options.wanted
        read = [(file, coco_index.read_instances(self.raw, file)) for file in self._files]
        categories = [(file, instances.categories) for file, instances in read]
        chosen = coco_index.category_ids(categories, wanted.categories)
        names = list(dict.fromkeys(chosen.values()))
        labels = {number: names.index(name) for number, name in chosen.items()}
        samples = []
        while read:
            file, instances = read.pop(0)
            pictures = coco_index.annotated_pictures(self.raw, file, instances, labels, wanted)
            samples += [
                Sample(path, file.split, msgspec.to_builtins(annotated))
                for path, annotated in pictures
                if annotated.things or self.options.keep_empty
            ]
        if not samples:
            raise RawDataError(
                "nothing that the options ask for is annotated in "
                + ", ".join(f"'{file.path}'" for file in self._files)
            )
        return names, samples

    def shared_files(self) -> list[str]:
        """The annotations."""
        return [file.path for file in self._files]

    def samples(self) -> list[Sample]:
        """Every picture with something in it (or all, option `keep_empty`)."""
        return self._index[1]

    def load(self, sample: Sample) -> tuple[Pixels, list[Shape]]:
        """The picture, upright and resized, and its things likewise."""
        annotated = msgspec.convert(sample.data, coco_index.AnnotatedPicture)
        size, path = (annotated.height, annotated.width), self.raw / sample.id
        have = upright_size(path)
        if have != size:
            raise ValueError(
                f"the picture is {have[0]} x {have[1]} pixels (height x width), its annotations "
                f"are for {size[0]} x {size[1]}"
            )
        target, fit = self.options.image_size, self.options.resize
        return read_rgb(path, target, fit), shapes_of(annotated, target, fit)

    def example(
        self, loaded: Any, sample: Sample, rng: np.random.Generator
    ) -> dict[str, Any] | None:
        """One variation; None when nothing is left in it (unless `keep_empty`)."""
        picture, shapes = loaded
        drawn = self.options.draw(rng)
        size = picture.shape[:2]
        cut = cut_for(size, self.options.crop_size, drawn)
        seen = seen_through(cut, size, shapes, self.options.min_visible)
        if not seen and not self.options.keep_empty:
            return None
        makers: dict[str, Any] = {
            "boxes": lambda: np.array([one.box for one in seen], np.float32).reshape(-1, 4),
            "id": lambda: sample.id,
            # Mirrored things would have no boxes, so what lies outside of the picture is black.
            "image": lambda: expose(take(picture, cut, mirror=False), drawn.stops),
            "is_crowd": lambda: [int(one.shape.thing.crowd) for one in seen],
            "labels": lambda: [one.shape.thing.label for one in seen],
            "mask": lambda: paint(cut, size, seen, self._values(seen)),
        }
        return {name: makers[name]() for name in self.options.input_attributes}

    def _values(self, seen: list[Seen]) -> Sequence[int]:
        """Values of the things in a mask."""
        if self.options.mask == "instances":
            return range(1, len(seen) + 1)
        return [one.shape.thing.label + 1 for one in seen]
