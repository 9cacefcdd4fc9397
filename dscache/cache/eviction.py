"""Decide which cached datasets to remove. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DAY_S = 86400.0
HANDED_OUT_S = DAY_S  # a training run may be using a path that was printed today
HANDED_OUT_NETWORK_S = 7 * DAY_S  # perhaps on another machine, whose locks are invisible here


class CachedDataset(NamedTuple):
    """A dataset in the local cache.

    Attributes:
        key: the resolved key.
        path: its folder.
        bytes: its size on disk.
        used_at: Unix time it was last handed out.
        pinned: whether it is protected from being removed.
        in_use: whether a process has it open.
        partial: whether shards are missing.
        damaged: whether its manifest is damaged, so that it is not found.
        foreign: names in its folder that dscache did not put there.
        aliases: other keys under which it was requested.
    """

    key: str
    path: str
    bytes: int
    used_at: float
    pinned: bool = False
    in_use: bool = False
    partial: bool = False
    damaged: bool = False
    foreign: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def reason_to_keep(entry: CachedDataset, now: float, handed_out_s: float = HANDED_OUT_S) -> str:
    """Return why the dataset must not be pruned; "" if it may be."""
    if entry.pinned:
        return "pinned"
    if entry.in_use:
        return "in use"
    if entry.damaged:
        return "damaged"
    if entry.foreign:
        return "holds other files"
    if now - entry.used_at < handed_out_s:
        return f"handed out in the last {handed_out_s / 3600:g} hours"
    return ""


def datasets_to_remove(
    entries: Sequence[CachedDataset],
    now: float,
    *,
    max_bytes: int | None,
    keep_days: float | None,
    handed_out_s: float = HANDED_OUT_S,
) -> list[CachedDataset]:
    """Return the datasets to remove, least recently used first.

    These are all that were not used for `keep_days`, then more until at most `max_bytes` are left.
    Datasets with a `reason_to_keep` count towards the size but are never removed.
    """
    removable = sorted(
        (entry for entry in entries if not reason_to_keep(entry, now, handed_out_s)),
        key=lambda entry: entry.used_at,
    )
    left_bytes = sum(entry.bytes for entry in entries)
    chosen = []
    for entry in removable:
        is_old = keep_days is not None and now - entry.used_at > keep_days * DAY_S
        if is_old or (max_bytes is not None and left_bytes > max_bytes):
            chosen.append(entry)
            left_bytes -= entry.bytes
    return chosen
