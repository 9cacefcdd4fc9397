"""Which cached datasets to remove. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DAY_S = 86400.0
HANDED_OUT_S = DAY_S  # a path printed today is likely in some running training
HANDED_OUT_NETWORK_S = 7 * DAY_S  # that of another machine, whose locks are not seen here


class CachedDataset(NamedTuple):
    """A dataset in the local cache.

    `bytes` on disk; `used_at` Unix time it was last handed out; `in_use`: a process has it open;
    `partial`: shards are missing; `damaged`: its manifest is, so that it is found no more;
    `aliases`: other keys under which it was asked for.
    """

    key: str
    path: str
    bytes: int
    used_at: float
    pinned: bool = False
    in_use: bool = False
    partial: bool = False
    damaged: bool = False
    aliases: tuple[str, ...] = ()


def protection(entry: CachedDataset, now: float, handed_out_s: float = HANDED_OUT_S) -> str:
    """Why the dataset may not be pruned, "" when it may."""
    if entry.pinned:
        return "pinned"
    if entry.in_use:
        return "in use"
    if now - entry.used_at < handed_out_s:
        return f"handed out in the last {handed_out_s / 3600:g} hours"
    return ""


def victims(
    entries: Sequence[CachedDataset],
    now: float,
    *,
    max_bytes: int | None,
    keep_days: float | None,
    handed_out_s: float = HANDED_OUT_S,
) -> list[CachedDataset]:
    """The datasets to remove, least recently used first.

    All that were not used for `keep_days`, then as many more as it takes until what is left is at
    most `max_bytes`. Protected ones count towards the size but are never chosen.
    """
    free = sorted(
        (entry for entry in entries if not protection(entry, now, handed_out_s)),
        key=lambda entry: entry.used_at,
    )
    left = sum(entry.bytes for entry in entries)
    chosen = []
    for entry in free:
        old = keep_days is not None and now - entry.used_at > keep_days * DAY_S
        if old or (max_bytes is not None and left > max_bytes):
            chosen.append(entry)
            left -= entry.bytes
    return chosen
