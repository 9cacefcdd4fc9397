"""The `coco` handler: images with the boxes, classes and masks of COCO annotations."""

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
    ImageOptions,
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
    """Images with COCO annotations.

    Layouts: ``annotations/instances_train2017.json`` with ``train2017/`` (or
    ``images/train2017/``), for any years and splits; or ``train/_annotations.coco.json`` with the
    images beside it. The split is the name's letters (``train2017``: train; ``valid``: val).
    """

    class Options(ImageOptions, kw_only=True):
        """The options; each has its own help."""

        input_attributes: Annotated[
            tuple[Attribute, ...],
            Meta(
                min_length=1,
                description="Features to write: image, boxes, labels and is_crowd (one per box), "
                "mask (one channel, PNG), id (the image's path).",
            ),
        ] = ("boxes", "image", "labels")
        image_size: Annotated[Size | None, help_text(IMAGE_SIZE_HELP)] = (640, 640)
        resize: Annotated[Resize, help_text(RESIZE_HELP)] = "contain"
        categories: Annotated[
            Annotated[tuple[str, ...], Meta(min_length=1)] | None,
            help_text("Names of the categories to include; null: all."),
        ] = None
        min_area: Annotated[
            float,
            Meta(
                ge=0,
                description="Leave out objects with a smaller area in the file, in square pixels.",
            ),
        ] = 0.0
        min_visible: Annotated[
            float,
            Meta(
                ge=0,
                le=1,
                description="Leave out objects of whose box less than this share remains after "
                "resizing and cropping; 0: keep all.",
            ),
        ] = 0.0
        crowd: Annotated[
            bool, help_text("true: include groups of objects, for which is_crowd is 1.")
        ] = False
        keep_empty: Annotated[
            bool, help_text("true: include images in which no objects are annotated or remain.")
        ] = False
        mask: Annotated[
            Literal["classes", "instances"],
            help_text(
                "Values of a mask. classes: label + 1; instances: index of the box + 1; 0 is "
                "background."
            ),
        ] = "classes"

        def __post_init__(self) -> None:
            """Check options that depend on each other; sort the names."""
            super().__post_init__()
            self.input_attributes = in_one_order(self.input_attributes)  # type: ignore[assignment]
            if self.categories is not None:
                self.categories = in_one_order(self.categories)

        @property
        def wanted(self) -> coco_index.Wanted:
            """Which annotations to include."""
            outlines = "mask" in self.input_attributes or self.rotation > 0
            return coco_index.Wanted(self.categories, self.min_area, self.crowd, outlines)

    options: Options

    @cached_property
    def features(self) -> dict[str, Feature]:  # type: ignore[override]
        """The features named in `input_attributes`."""
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
                'set "mask": "instances"',
            )
        return Image("png", (*self.options.final_size, 1))

    @cached_property
    def _files(self) -> list[coco_index.CocoFile]:
        return coco_index.coco_files(self.raw)

    @cached_property
    def _index(self) -> tuple[list[str], list[Sample]]:
        """Names of the classes, and all samples. The files are read once and not kept."""
        wanted = self.options.wanted
        read = [(file, coco_index.read_instances(self.raw, file)) for file in self._files]
        categories = [(file, instances.categories) for file, instances in read]
        chosen = coco_index.category_ids(categories, wanted.categories)
        names = list(dict.fromkeys(chosen.values()))
        labels = {number: names.index(name) for number, name in chosen.items()}
        samples = []
        while read:
            file, instances = read.pop(0)
            images = coco_index.annotated_images(self.raw, file, instances, labels, wanted)
            samples += [
                Sample(path, file.split, msgspec.to_builtins(annotated))
                for path, annotated in images
                if annotated.objects or self.options.keep_empty
            ]
        if not samples:
            raise RawDataError(
                "the options exclude everything that is annotated in "
                + ", ".join(f"'{file.path}'" for file in self._files)
            )
        return names, samples

    def shared_files(self) -> list[str]:
        """The annotation files."""
        return [file.path for file in self._files]

    def samples(self) -> list[Sample]:
        """Every image with annotated objects, or with `keep_empty` every image."""
        return self._index[1]

    def load(self, sample: Sample) -> tuple[Pixels, list[Shape]]:
        """The upright, resized image [height, width, 3], and its objects, resized with it."""
        annotated = msgspec.convert(sample.data, coco_index.AnnotatedImage)
        size, path = (annotated.height, annotated.width), self.raw / sample.id
        actual = upright_size(path)
        if actual != size:
            raise ValueError(
                f"the image is {actual[0]} x {actual[1]} pixels (height x width), its annotations "
                f"are for {size[0]} x {size[1]}"
            )
        target, fit = self.options.image_size, self.options.resize
        return read_rgb(path, target, fit), shapes_of(annotated, target, fit)

    def example(
        self, loaded: Any, sample: Sample, rng: np.random.Generator
    ) -> dict[str, Any] | None:
        """One variation; None if no object remains in it (unless `keep_empty`)."""
        image, shapes = loaded
        drawn = self.options.draw(rng)
        size = image.shape[:2]
        cut = cut_for(size, self.options.crop_size, drawn)
        seen = seen_through(cut, size, shapes, self.options.min_visible)
        if not seen and not self.options.keep_empty:
            return None
        makers: dict[str, Any] = {
            "boxes": lambda: np.array([one.box for one in seen], np.float32).reshape(-1, 4),
            "id": lambda: sample.id,
            # Mirrored objects would have no boxes, so the area outside the image is black.
            "image": lambda: expose(take(image, cut, mirror=False), drawn.stops),
            "is_crowd": lambda: [int(one.shape.annotated.crowd) for one in seen],
            "labels": lambda: [one.shape.annotated.label for one in seen],
            "mask": lambda: paint(cut, size, seen, self._values(seen)),
        }
        return {name: makers[name]() for name in self.options.input_attributes}

    def _values(self, seen: list[Seen]) -> Sequence[int]:
        """The mask values of the objects."""
        if self.options.mask == "instances":
            return range(1, len(seen) + 1)
        return [one.shape.annotated.label + 1 for one in seen]
