"""Pictures and the masks that belong to them, by the names of folders and files."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from dataset_handlers.files import pictures_in, split_folders
from dscache_sdk import RawData, RawDataError


class Pair(msgspec.Struct, frozen=True):
    """A picture and its mask, by their paths below the raw data.

    Attributes:
        split: what the folders say; "" where they say nothing.
    """

    picture: str
    mask: str
    split: str


class Layout(msgspec.Struct, frozen=True):
    """A folder of pictures, the one with their masks, and the split of both ("": not fixed)."""

    pictures: str
    masks: str
    split: str = ""


LAYOUTS = (
    Layout("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "train"),
    Layout("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", "test"),
    Layout("images", "masks"),
)


def find_pairs(raw: RawData) -> list[Pair]:
    """All pictures with their masks, in a fixed order.

    A mask has its picture's name, with any suffix, in the same place below its own folder.

    Raises:
        RawDataError: there are no pictures, or one has no mask; names both files.
    """
    pairs = [pair for layout in LAYOUTS for pair in _pairs(raw, layout)]
    if not pairs:
        known = "; ".join(f"{layout.pictures}/ with {layout.masks}/" for layout in LAYOUTS)
        raise RawDataError(f"there are no pictures under {raw.root}; looked for {known}")
    return pairs


def _pairs(raw: RawData, layout: Layout) -> list[Pair]:
    pictures = pictures_in(raw, f"{layout.pictures}/**/*")
    masks = {_stem(path, layout.masks): path for path in _masks(raw, layout)}
    inner = [path.removeprefix(f"{layout.pictures}/") for path in pictures]
    by_folder = not layout.split and split_folders(inner)
    lonely = [path for path in pictures if _stem(path, layout.pictures) not in masks]
    if lonely:
        raise RawDataError(_without_mask(lonely, layout))
    return [
        Pair(
            path,
            masks[_stem(path, layout.pictures)],
            place.partition("/")[0] if by_folder else layout.split,
        )
        for path, place in zip(pictures, inner, strict=True)
    ]


def _masks(raw: RawData, layout: Layout) -> list[str]:
    """Masks; of several for one picture the PNG comes last, and wins."""
    found = pictures_in(raw, f"{layout.masks}/**/*")
    return sorted(found, key=lambda path: (path.lower().endswith(".png"), path))


def _stem(path: str, folder: str) -> str:
    return str(PurePosixPath(path).relative_to(folder).with_suffix(""))


def _without_mask(lonely: list[str], layout: Layout) -> str:
    first = lonely[0]
    wanted = f"{layout.masks}/{_stem(first, layout.pictures)}.png"
    more = f", nor have {len(lonely) - 1} others theirs" if len(lonely) > 1 else ""
    return f"the picture '{first}' has no mask '{wanted}'{more}; add the mask or remove the picture"
