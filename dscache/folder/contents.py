"""What a local dataset folder holds besides its members, and how much of the dataset. Light: a hit
imports this, so it imports no more than `json` before more is needed.

    manifest.json   the ready marker; written last, so its presence means a usable folder
    partial.json    only in a folder that lacks shards: {"schema": 1, "splits": {"train":
                    {"shards": 12, "held": [0, 3]}}}, with every split of the dataset
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import IntegrityError

if TYPE_CHECKING:
    from ..protocol.manifests import Live

MANIFEST = "manifest.json"
PARTIAL = "partial.json"
PART_SUFFIX = ".part"
TEMPORARY_SUFFIX = ".tmp"
LEFTOVER_SUFFIXES = (TEMPORARY_SUFFIX, ".rest", ".old", ".gone")


class SplitHolding(NamedTuple):
    """`shards` of the split in all, and the indices that are held (from 0, in plan order)."""

    shards: int
    held: frozenset[int]


Holding = Mapping[str, SplitHolding]


def holds(
    holding: Holding | None, splits: Collection[str] | None, shards: Collection[int] | None
) -> bool:
    """Whether a folder has what is asked; a `holding` of None is a complete dataset.

    `splits` None means all of them; `shards` are indices within each split, None means all.
    """
    if holding is None:
        return True
    for split in holding if splits is None else splits:
        if split not in holding:
            return False
        count, held = holding[split]
        wanted = range(count) if shards is None else (index for index in shards if index < count)
        if not held.issuperset(wanted):
            return False
    return True


def usable(folder: Path) -> bool:
    """Whether the folder is a dataset, as far as that shows without reading its manifest: none, an
    empty one and half of one (a full disk, a power cut) show."""
    try:
        with (folder / MANIFEST).open("rb", buffering=0) as file:
            begin = file.read(1)
            file.seek(-2, os.SEEK_END)
            return begin == b"{" and file.read(2).rstrip()[-1:] == b"}"
    except OSError:
        return False


def complete(holding: Holding) -> bool:
    """Whether no shard is missing."""
    return all(len(split.held) == split.shards for split in holding.values())


def read_manifest(folder: Path) -> Live:
    """The ready marker stored in a dataset folder. Raises IntegrityError, FileNotFoundError."""
    from ..protocol import manifests

    path = folder / MANIFEST
    return manifests.decode(path.read_bytes(), manifests.Live, where=str(path))


def read(folder: Path) -> Holding | None:
    """The holding of a folder, None when it is complete. Raises IntegrityError."""
    path = folder / PARTIAL
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        splits = json.loads(text)["splits"]
        return {
            name: SplitHolding(int(split["shards"]), frozenset(map(int, split["held"])))
            for name, split in splits.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{path}: damaged ({error!r}); `dscache cache verify --repair` mends it"
        ) from error


def folder_holds(
    folder: Path, splits: Collection[str] | None, shards: Collection[int] | None
) -> bool:
    """Whether a folder holds what is asked. Raises IntegrityError when its description is damaged,
    UsageError for a split or shard that the dataset does not have."""
    if not usable(folder) or not holds(read(folder), splits, shards):
        return False
    if splits is not None or shards is not None:  # else nothing more is read, nor imported
        from .selection import select

        select(read_manifest(folder), splits, shards)
    return True


def encode(holding: Holding) -> bytes:
    """The content of partial.json."""
    splits = {
        name: {"shards": split.shards, "held": sorted(split.held)}
        for name, split in holding.items()
    }
    return json.dumps({"schema": 1, "splits": splits}, indent=1).encode()
