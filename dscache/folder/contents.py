"""Which members a dataset folder holds. Light: a cache hit imports this.

manifest.json   the ready marker; written last, so its presence means a usable folder
partial.json    only in a folder that lacks shards: {"schema": 1, "splits": {"train":
                {"shards": 12, "held": [0, 3]}}}, with every split of the dataset
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..canonical import key_of, members_of
from ..errors import IntegrityError, SpecError

if TYPE_CHECKING:
    from ..protocol.manifests import Live, Member

MANIFEST = "manifest.json"
PARTIAL = "partial.json"
PART_SUFFIX = ".part"
TEMPORARY_SUFFIX = ".tmp"
LEFTOVER_SUFFIXES = (TEMPORARY_SUFFIX, ".rest", ".old", ".gone")
MAX_NAME_BYTES = 200  # a file name may have 255, and ".part" is appended
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_DIGEST = re.compile(r"[0-9a-f]{64}")


class SplitContents(NamedTuple):
    """`shards` is the number of shards of the split; `held` are the indices of those in the folder,
    from 0, in plan order."""

    shards: int
    held: frozenset[int]


Contents = Mapping[str, SplitContents]


def usable(folder: Path) -> bool:
    """Whether the folder is a dataset, as far as can be told without reading its manifest.

    A manifest that is missing, empty or cut off (full disk, power failure) is detected.
    """
    try:
        with (folder / MANIFEST).open("rb", buffering=0) as file:
            first = file.read(1)
            file.seek(-2, os.SEEK_END)
            return first == b"{" and file.read(2).rstrip()[-1:] == b"}"
    except OSError:
        return False


def read_manifest(folder: Path, key: str | None = None) -> Live:
    """The ready marker stored in a dataset folder. Raises IntegrityError, FileNotFoundError.

    With `key`, the marker must be that dataset's: somebody may have moved the folder.
    """
    from ..protocol import manifests

    path = folder / MANIFEST
    live = manifests.decode(path.read_bytes(), manifests.Live, where=str(path))
    if key is not None:
        _require_key(live.spec.members, key, path)
    return live


def is_of(folder: Path, key: str) -> bool:
    """Whether the folder is a dataset, and that of this key. Files are not looked at."""
    try:
        if not usable(folder):
            return False
        _read_document(folder, key)
    except (OSError, IntegrityError):
        return False
    return True


def read_contents(folder: Path) -> Contents | None:
    """What a folder holds of each split; None when it is complete. Raises IntegrityError."""
    path = folder / PARTIAL
    try:
        return {
            name: SplitContents(_count(split["shards"]), frozenset(map(_count, split["held"])))
            for name, split in json.loads(path.read_bytes())["splits"].items()
        }
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def wrong_files(folder: Path, contents: Contents | None, key: str | None = None) -> Iterator[str]:
    """Yield the names of members that should be in the folder and do not have their size.

    Costs one stat a file. The manifest is read as plain JSON: msgspec takes longer to import than
    a cache hit has. Raises IntegrityError when the manifest is damaged or, with `key`, is that of
    another dataset; FileNotFoundError.
    """
    document = _read_document(folder, key)
    try:
        members = document["members"]
        expected = [(_text(m["name"]), m["size"], _text(m.get("split", ""))) for m in members]
    except _DAMAGED as error:
        raise _damaged(folder / MANIFEST, error) from error
    counts: dict[str, int] = {}
    for name, size, split in expected:
        index = counts[split] = counts.get(split, -1) + 1
        held = (
            contents is None or not split or (split in contents and index in contents[split].held)
        )
        if held and _size_of(folder, name) != size:
            yield name


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError("a number of shards is none")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of a name")
    return value


def _read_document(folder: Path, key: str | None) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        spec = None if key is None else document["spec"]
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    if key is not None:
        _require_key(spec, key, path)
    return document


def _require_key(spec: Any, key: str, path: Path) -> None:
    try:
        found = key_of(members_of(spec))
    except SpecError as error:
        raise _damaged(path, error) from error
    if found != key:
        raise IntegrityError(
            f"{path}: describes {found}, not {key}; `dscache cache verify --repair` repairs it"
        )


def _damaged(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"{path}: damaged ({repr(error)[:200]}); `dscache cache verify --repair` repairs it"
    )


def _size_of(folder: Path, name: str) -> int | None:
    try:
        return os.stat(f"{folder}/{name}").st_size  # noqa: PTH116  a Path costs more than the stat
    except (OSError, ValueError):  # a NUL in the name
        return None


def encode(contents: Contents) -> bytes:
    """The content of partial.json."""
    splits = {
        name: {"shards": split.shards, "held": sorted(split.held)}
        for name, split in contents.items()
    }
    return json.dumps({"schema": 1, "splits": splits}, indent=1).encode()


def is_complete(contents: Contents) -> bool:
    """Whether no shard is missing."""
    return all(len(split.held) == split.shards for split in contents.values())


def contents_of(live: Live, held: Collection[str]) -> Contents:
    """The contents of a folder that has the members named `held`."""
    return {
        split: SplitContents(
            len(members),
            frozenset(index for index, member in enumerate(members) if member.name in held),
        )
        for split, members in shards_by_split(live).items()
    }


def held_names(live: Live, contents: Contents | None) -> set[str]:
    """Names of the members in a folder with these contents (None: all of them)."""
    if contents is None:
        return {member.name for member in live.members}
    names = {member.name for member in live.members if not member.split}
    for split, members in shards_by_split(live).items():
        held = contents[split].held if split in contents else frozenset()
        names.update(member.name for index, member in enumerate(members) if index in held)
    return names


def shards_by_split(live: Live) -> dict[str, list[Member]]:
    """The shards of each split, in plan order."""
    by_split: dict[str, list[Member]] = {}
    for member in live.shards:
        by_split.setdefault(member.split, []).append(member)
    return by_split


def check_members(live: Live) -> None:
    """Refuse a ready marker whose member table is impossible: names that leave the folder or occur
    twice, ranges outside the zip. Raises IntegrityError naming the member."""
    seen: set[str] = set()
    for member in live.members:
        problem = _problem(member, live.zip_size, seen)
        if problem:
            raise IntegrityError(
                f"ready marker of {live.zip_key}: member {member.name!r} {problem}; "
                "the marker is damaged: have the dataset retired and built again"
            )
        seen.add(member.name)


def _problem(member: Member, zip_size: int, seen: Collection[str]) -> str:
    name = member.name
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        return "is not a plain file name"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"has a name longer than {MAX_NAME_BYTES} bytes"
    if name in (MANIFEST, PARTIAL) or name.endswith((PART_SUFFIX, *LEFTOVER_SUFFIXES)):
        return "has a name that is reserved for the local cache"
    if name in seen:
        return "occurs twice"
    if member.size < 0 or member.offset < 0 or member.offset + member.size > zip_size:
        return f"lies outside the zip ({member.offset}+{member.size} of {zip_size} bytes)"
    if not 0 <= member.crc32 < 1 << 32 or not _DIGEST.fullmatch(member.digest):
        return "has no valid crc32 and digest"
    return ""
