"""Match images with their masks by folder and file names."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from dataset_handlers.files import images_in, split_folders
from dscache_sdk import RawData, RawDataError


class Pair(msgspec.Struct, frozen=True):
    """An image and its mask, by their paths below the raw data.

    Attributes:
        split: the split of its folder; "" if no folder sets one.
    """

    image: str
    mask: str
    split: str


class Layout(msgspec.Struct, frozen=True):
    """A folder of images, the folder of their masks, and their split ("": not fixed)."""

    images: str
    masks: str
    split: str = ""


LAYOUTS = (
    Layout("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "train"),
    Layout("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", "test"),
    Layout("images", "masks"),
)


def find_pairs(raw: RawData) -> list[Pair]:
    """All images with their masks, in a fixed order.

    A mask has the relative path of its image, with any suffix.

    Raises:
        RawDataError: there are no images, or one has no mask.
    """
    pairs = [pair for layout in LAYOUTS for pair in _pairs(raw, layout)]
    if not pairs:
        known = "; ".join(f"{layout.images}/ with {layout.masks}/" for layout in LAYOUTS)
        raise RawDataError(f"there are no images under {raw.root}; expected {known}")
    return pairs


def _pairs(raw: RawData, layout: Layout) -> list[Pair]:
    images = images_in(raw, f"{layout.images}/**/*")
    masks = {_stem(path, layout.masks): path for path in _masks(raw, layout)}
    inner = [path.removeprefix(f"{layout.images}/") for path in images]
    by_folder = not layout.split and split_folders(inner)
    unmatched = [path for path in images if _stem(path, layout.images) not in masks]
    if unmatched:
        raise RawDataError(_without_mask(unmatched, layout))
    return [
        Pair(
            path,
            masks[_stem(path, layout.images)],
            place.partition("/")[0] if by_folder else layout.split,
        )
        for path, place in zip(images, inner, strict=True)
    ]


def _masks(raw: RawData, layout: Layout) -> list[str]:
    """Paths of the masks. Of several for one image, the PNG is last and is used."""
    paths = images_in(raw, f"{layout.masks}/**/*")
    return sorted(paths, key=lambda path: (path.lower().endswith(".png"), path))


def _stem(path: str, folder: str) -> str:
    return str(PurePosixPath(path).relative_to(folder).with_suffix(""))


def _without_mask(unmatched: list[str], layout: Layout) -> str:
    first = unmatched[0]
    mask = f"{layout.masks}/{_stem(first, layout.images)}.png"
    others = len(unmatched) - 1
    more = f", and {others} other images have none either" if others else ""
    return f"the image '{first}' has no mask '{mask}'{more}; add the mask or remove the image"
