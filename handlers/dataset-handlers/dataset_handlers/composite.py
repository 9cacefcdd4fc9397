"""The `composite` handler: cut-outs with transparency, laid over backgrounds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dataset_handlers.files import pictures_in, split_folders
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
    """Cut-outs (``foregrounds/**``, PNG or anything else with transparency) over backgrounds
    (``backgrounds/**``), with the matte.

    Splits: when every cut-out lies in a folder ``foregrounds/train``, ``…/val`` or ``…/test``,
    these; otherwise the hash of the cut-out's path. Backgrounds in such folders are used for
    their own split only, others for all.
    """

    class Options(RecordOptions, kw_only=True):
        """See each option's help."""

        input_attributes: Annotated[
            tuple[Attribute, ...],
            Meta(
                min_length=1,
                description="Features to write: image, alpha (the matte: one channel, PNG), id "
                "(the cut-out's path), background (its path).",
            ),
        ] = ("alpha", "image")
        image_size: Annotated[Size, help_text("Height and width of the pictures.")] = (512, 512)
        scale: Annotated[
            tuple[Share, Share],
            help_text(
                "Smallest and largest share of the picture's height or width, whichever it "
                "reaches first, that a cut-out takes up."
            ),
        ] = (0.4, 0.9)
        position: Annotated[
            float,
            Meta(
                ge=0,
                le=1,
                description="How far from the middle a cut-out may lie: 0 not at all, 1 up to the "
                "edges.",
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
            Splits, help_text("Fractions set apart as val and test, by the hash of the path.")
        ] = msgspec.field(default_factory=Splits)

        def __post_init__(self) -> None:
            """Check what concerns more than one option; order the attributes."""
            self.input_attributes = in_one_order(self.input_attributes)  # type: ignore[assignment]
            if self.scale[0] > self.scale[1]:
                raise OptionsError("scale", f"{list(self.scale)}: the smaller share comes first")

    options: Options

    @cached_property
    def features(self) -> dict[str, Feature]:  # type: ignore[override]
        """The features that `input_attributes` asks for."""
        options = self.options
        every = {
            "alpha": Image("png", (*options.image_size, 1)),
            "background": Text(),
            "id": Text(),
            "image": Image(options.encoding, (*options.image_size, 3), options.quality),
        }
        return {name: every[name] for name in options.input_attributes}

    @cached_property
    def _foregrounds(self) -> list[str]:
        return self._pictures(FOREGROUNDS)

    @cached_property
    def _backgrounds(self) -> dict[str, list[str]]:
        """Split -> its backgrounds; "" stands for any split."""
        paths = self._pictures(BACKGROUNDS)
        if not _in_split_folders(paths):
            return {"": paths}
        groups: dict[str, list[str]] = {}
        for path in paths:
            groups.setdefault(path.split("/")[1], []).append(path)
        return groups

    def _pictures(self, folder: str) -> list[str]:
        paths = pictures_in(self.raw, f"{folder}/**/*")
        if not paths:
            raise RawDataError(f"there are no pictures in {self.raw.root / folder}")
        return paths

    def shared_files(self) -> list[str]:
        """All backgrounds: any of them may come under any cut-out."""
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
                    f"nothing is in {self.raw.root / BACKGROUNDS / split}"
                )
            yield Sample(path, split)

    def _choice(self, split: str) -> list[str]:
        return self._backgrounds.get("") or self._backgrounds.get(split, [])

    def load(self, sample: Sample) -> Any:
        """The cut-out without its transparent margins: RGBA."""
        return read_cutout(self.raw / sample.id)

    def example(self, loaded: Any, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """One variation: the cut-out somewhere over some background."""
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
