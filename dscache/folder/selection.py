"""Which members of a zip to fetch, and which of them with one range request. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ..errors import IntegrityError, UsageError
from ..protocol.manifests import Live, Member
from .contents import LEFTOVER_SUFFIXES, MANIFEST, PART_SUFFIX, PARTIAL, SplitHolding

MAX_NAME_BYTES = 200  # a file name may have 255, and ".part" is appended
MAX_GAP_BYTES = 64 << 10  # read and dropped rather than asked around: headers, a skipped tiny shard
MIN_RUN_BYTES = 4 << 20
MAX_RUN_BYTES = 64 << 20
RUNS_AIMED_AT = 16

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_members(live: Live) -> None:
    """Refuse a ready marker whose member table cannot be: names that leave the folder, ranges
    outside the zip, names twice. Raises IntegrityError naming the member."""
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
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    if name in (MANIFEST, PARTIAL) or name.endswith((PART_SUFFIX, *LEFTOVER_SUFFIXES)):
        return "has a name that the local cache needs for itself"
    if name in seen:
        return "appears twice"
    if member.size < 0 or member.offset < 0 or member.offset + member.size > zip_size:
        return f"lies outside the zip ({member.offset}+{member.size} of {zip_size} bytes)"
    if not 0 <= member.crc32 < 1 << 32 or not _DIGEST.fullmatch(member.digest):
        return "has no proper crc32 and digest"
    return ""


def select(
    live: Live, splits: Collection[str] | None = None, shards: Collection[int] | None = None
) -> list[Member]:
    """The members to fetch: the shards asked for and every member that is no shard, in zip order.

    `shards` are indices within a split, from 0, in plan order (the 00003 of -00003-of-00012); where
    splits differ in length, each gives those it has. Raises UsageError for a split or an index that
    does not exist.
    """
    by_split = _by_split(live)
    chosen = by_split if splits is None else {name: by_split.get(name) for name in splits}
    unknown = sorted(name for name, members in chosen.items() if members is None)
    if unknown:
        raise UsageError(
            f"no split {unknown[0]!r} in {live.spec.dataset_name}; "
            f"there are: {', '.join(sorted(by_split)) or 'none'}"
        )
    lists = [members for members in chosen.values() if members is not None]
    _check_indices(shards, max(map(len, lists), default=0))
    wanted = {
        member.name
        for members in lists
        for index, member in enumerate(members)
        if shards is None or index in shards
    }
    picked = [member for member in live.members if not member.split or member.name in wanted]
    return sorted(picked, key=lambda member: member.offset)


def holding_of(live: Live, held: Collection[str]) -> Mapping[str, SplitHolding]:
    """What a folder with the members named `held` holds of the dataset."""
    return {
        split: SplitHolding(
            len(members),
            frozenset(index for index, member in enumerate(members) if member.name in held),
        )
        for split, members in _by_split(live).items()
    }


def held_names(live: Live, holding: Mapping[str, SplitHolding] | None) -> set[str]:
    """Names of the members that a folder with this holding has (None: all of them)."""
    if holding is None:
        return {member.name for member in live.members}
    names = {member.name for member in live.members if not member.split}
    for split, members in _by_split(live).items():
        held = holding[split].held if split in holding else frozenset()
        names.update(member.name for index, member in enumerate(members) if index in held)
    return names


def plan_runs(members: Sequence[Member], alone: Collection[str] = ()) -> list[list[Member]]:
    """Group members, given in zip order, so that each group can be read as one range.

    Small neighbours share a range, so a small dataset costs one round trip; a run stays small
    enough that several connections get equal shares. Names in `alone` (half-fetched members, which
    do not begin at their beginning) and empty members get a run of their own.
    """
    total = sum(member.size for member in members)
    run_bytes = min(max(total // RUNS_AIMED_AT, MIN_RUN_BYTES), MAX_RUN_BYTES)
    runs: list[list[Member]] = []
    for member in members:
        if runs and _joins(runs[-1], member, run_bytes, alone):
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs


def _joins(run: list[Member], member: Member, run_bytes: int, alone: Collection[str]) -> bool:
    first, last = run[0], run[-1]
    if member.name in alone or last.name in alone or not member.size or not last.size:
        return False
    gap = member.offset - (last.offset + last.size)
    return 0 <= gap <= MAX_GAP_BYTES and member.offset + member.size - first.offset <= run_bytes


def _by_split(live: Live) -> dict[str, list[Member]]:
    by_split: dict[str, list[Member]] = {}
    for member in live.shards:
        by_split.setdefault(member.split, []).append(member)
    return by_split


def _check_indices(shards: Collection[int] | None, count: int) -> None:
    wrong = sorted(index for index in shards or () if not 0 <= index < count)
    if wrong:
        raise UsageError(f"no shard {wrong[0]}; the splits asked for have shards 0 to {count - 1}")
    if shards is not None and not shards:
        raise UsageError("no shards were asked for; leave `shards` out to get all of them")
