"""Which part of a dataset is wanted, and whether a folder has it. Light: for cache hits."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UsageError
from .contents import (
    Contents,
    read_contents,
    read_manifest,
    shards_by_split,
    usable,
    wrong_files,
)

if TYPE_CHECKING:
    from ..protocol.manifests import Live, Member


class Selection(NamedTuple):
    """The wanted part of a dataset.

    `splits` are names, None means all of them. `shards` are indices within each split, from 0, in
    plan order (the 00003 of -00003-of-00012); None means all.
    """

    splits: frozenset[str] | None = None
    shards: frozenset[int] | None = None

    @classmethod
    def of(
        cls, splits: Collection[str] | None = None, shards: Collection[int] | None = None
    ) -> Selection:
        """The selection that a caller's arguments mean. Raises UsageError for a single name."""
        if isinstance(splits, str):
            raise UsageError(f"splits: expected a list of names; write splits=[{splits!r}]")
        return cls(
            None if splits is None else frozenset(splits),
            None if shards is None else frozenset(shards),
        )

    @property
    def is_everything(self) -> bool:
        """Whether the whole dataset is wanted."""
        return self.splits is None and self.shards is None

    def is_covered_by(self, contents: Contents | None) -> bool:
        """Whether a folder with these contents (None: a complete one) has what is wanted."""
        if contents is None:
            return True
        for split in contents if self.splits is None else self.splits:
            if split not in contents:
                return False
            count, held = contents[split]
            shards = range(count) if self.shards is None else self.shards
            if not held.issuperset(index for index in shards if index < count):
                return False
        return True


EVERYTHING = Selection()


def folder_has(folder: Path, selection: Selection) -> bool:
    """Whether a folder, which has the name of a key, has what is wanted of that dataset, in files
    of the right size.

    Raises IntegrityError when its description is damaged or another dataset's, UsageError for a
    split or shard that the dataset does not have.
    """
    if not usable(folder):
        return False
    contents = read_contents(folder)
    if not selection.is_covered_by(contents) or any(wrong_files(folder, contents, folder.name)):
        return False
    if not selection.is_everything:  # otherwise nothing more is imported
        select(read_manifest(folder), selection)
    return True


def select(live: Live, selection: Selection = EVERYTHING) -> list[Member]:
    """The members to fetch, in zip order: the wanted shards, and every member that is no shard.

    Where splits differ in length, each gives the shards that it has. Raises UsageError for a split
    or an index that does not exist.
    """
    by_split = shards_by_split(live)
    names = by_split.keys() if selection.splits is None else selection.splits
    unknown = sorted(names - by_split.keys())
    if unknown:
        raise UsageError(
            f"no split {unknown[0]!r} in {live.spec.dataset_name}; "
            f"available: {', '.join(sorted(by_split)) or 'none'}"
        )
    shards = selection.shards
    _check_indices(shards, max((len(by_split[name]) for name in names), default=0))
    wanted = {
        member.name
        for name in names
        for index, member in enumerate(by_split[name])
        if shards is None or index in shards
    }
    members = [member for member in live.members if not member.split or member.name in wanted]
    return sorted(members, key=lambda member: member.offset)


def _check_indices(shards: Collection[int] | None, count: int) -> None:
    wrong = sorted(index for index in shards or () if not 0 <= index < count)
    if wrong:
        raise UsageError(f"no shard {wrong[0]}; the selected splits have shards 0 to {count - 1}")
    if shards is not None and not shards:
        raise UsageError("`shards` is empty; leave it out to get all shards")
