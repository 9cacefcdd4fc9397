"""The `composite` handler: transparent cut-outs over backgrounds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dataset_handlers.files import images_in, split_folders
from dataset_handlers.layers import Placement, lay_over, read_cutout
from dataset_handlers.options import RecordOptions, Size, Splits, help_text, in_one_order
from dscache_sdk import (
    DatasetHandler,
    Feature,
    Image,
    OptionsError,
    RawDataError,
    Sample,
    Text,
    hash_split,
)
from dscache_sdk.images import read_rgb

Attribute = Literal["alpha", "background", "id", "image"]
Share = Annotated[float, Meta(ge=0.01, le=2)]

FOREGROUNDS, BACKGROUNDS = "foregrounds", "backgrounds"


class Composite(DatasetHandler, name="composite"):
    """Cut-outs (``foregrounds/**``: PNG or another format with transparency) over backgrounds
    (``backgrounds/**``), with the matte.

    If every cut-out lies in a folder ``foregrounds/train``, ``…/val`` or ``…/test``, the folder is
    the split; otherwise the hash of the cut-out's path decides. Backgrounds in such folders are
    used for that split only, others for all.
    """

    class Options(RecordOptions, kw_only=True):
        """The options; each has its own help."""

        input_attributes: Annotated[
            tuple[Attribute, ...],
            Meta(
                min_length=1,
                description="Features to write: image, alpha (the matte: one channel, PNG), id "
                "(the cut-out's path), background (its path).",
            ),
        ] = ("alpha", "image")
        image_size: Annotated[Size, help_text("Height and width of the images.")] = (512, 512)
        scale: Annotated[
            tuple[Share, Share],
            help_text(
                "Minimum and maximum size of a cut-out, as a share of the image's height or width, "
                "whichever it reaches first."
            ),
        ] = (0.4, 0.9)
        position: Annotated[
            float,
            Meta(
                ge=0,
                le=1,
                description="Distance of a cut-out from the centre: 0: none; 1: up to the edges.",
            ),
        ] = 1.0
        flip: Annotated[
            float,
            Meta(ge=0, le=1, description="Probability of a horizontal flip of the cut-out."),
        ] = 0.0
        background_flip: Annotated[
            float,
            Meta(ge=0, le=1, description="Probability of a horizontal flip of the background."),
        ] = 0.0
        splits: Annotated[
            Splits, help_text("Fractions of val and test, chosen by the hash of the path.")
        ] = msgspec.field(default_factory=Splits)

        def __post_init__(self) -> None:
            """Check options that depend on each other; sort the attributes."""
            self.input_attributes = in_one_order(self.input_attributes)  # type: ignore[assignment]
            if self.scale[0] > self.scale[1]:
                raise OptionsError("scale", f"{list(self.scale)}: the minimum must come first")

    options: Options

    @cached_property
    def features(self) -> dict[str, Feature]:  # type: ignore[override]
        """The features named in `input_attributes`."""
        options = self.options
        available = {
            "alpha": Image("png", (*options.image_size, 1)),
            "background": Text(),
            "id": Text(),
            "image": Image(options.encoding, (*options.image_size, 3), options.quality),
        }
        return {name: available[name] for name in options.input_attributes}

    @cached_property
    def _foregrounds(self) -> list[str]:
        return self._images(FOREGROUNDS)

    @cached_property
    def _backgrounds(self) -> dict[str, list[str]]:
        """Backgrounds by split; "" stands for all splits."""
        paths = self._images(BACKGROUNDS)
        if not _in_split_folders(paths):
            return {"": paths}
        groups: dict[str, list[str]] = {}
        for path in paths:
            groups.setdefault(path.split("/")[1], []).append(path)
        return groups

    def _images(self, folder: str) -> list[str]:
        paths = images_in(self.raw, f"{folder}/**/*")
        if not paths:
            raise RawDataError(f"there are no images in {self.raw.root / folder}")
        return paths

    def shared_files(self) -> list[str]:
        """All backgrounds: a variation may use any of them."""
        return [path for paths in self._backgrounds.values() for path in paths]

    def samples(self) -> Iterator[Sample]:
        """Every cut-out."""
        fractions = self.options.splits
        by_folder = _in_split_folders(self._foregrounds)
        for path in self._foregrounds:
            split = hash_split(path, fractions.val, fractions.test)
            if by_folder:
                split = path.split("/")[1]
            if not self._choice(split):
                raise RawDataError(
                    f"there are no backgrounds for the split {split} of the cut-out '{path}': "
                    f"{self.raw.root / BACKGROUNDS / split} has no images"
                )
            yield Sample(path, split)

    def _choice(self, split: str) -> list[str]:
        return self._backgrounds.get("") or self._backgrounds.get(split, [])

    def load(self, sample: Sample) -> Any:
        """The cut-out without its transparent margins, a Pillow image in RGBA."""
        return read_cutout(self.raw / sample.id)

    def example(self, loaded: Any, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """One variation: the cut-out at a random place over a random background."""
        options = self.options
        drawn = Placement.draw(
            rng, options.scale, options.position, options.flip, options.background_flip
        )
        choice = self._choice(sample.split)
        path = choice[min(int(drawn.background * len(choice)), len(choice) - 1)]
        below = read_rgb(self.raw / path, options.image_size, "cover")
        image, alpha = lay_over(loaded, below, drawn)
        values = {"alpha": alpha, "background": path, "id": sample.id, "image": image}
        return {name: values[name] for name in options.input_attributes}


def _in_split_folders(paths: list[str]) -> bool:
    return split_folders(path.partition("/")[2] for path in paths)
