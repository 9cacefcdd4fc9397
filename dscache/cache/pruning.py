"""Make room in the local cache. `eviction` decides which datasets are removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ..download.staging import discard_old, leftovers, size_of
from ..errors import UsageError
from ..folder import filesystems
from ..units import format_bytes
from .eviction import HANDED_OUT_NETWORK_S, HANDED_OUT_S, CachedDataset, datasets_to_remove
from .home import Home

LEFTOVER_KEEP_S = 7 * 86400.0  # an unfinished download this old is not resumed any more


class Pruned(NamedTuple):
    """What `prune` removed, or would remove. `freed_bytes` includes unfinished downloads."""

    removed: list[CachedDataset]
    freed_bytes: int


def prune(
    home: Home,
    now: float,
    *,
    max_bytes: int | None = None,
    keep_days: float | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Prune the cache; see `Cache.prune`."""
    handed_out_s = HANDED_OUT_NETWORK_S if filesystems.network_type(home.datasets) else HANDED_OUT_S
    unfinished = unfinished_bytes(home)
    freed = discard_old(home.datasets, before=now - LEFTOVER_KEEP_S, dry_run=dry_run)
    chosen = datasets_to_remove(
        home.entries(),
        now,
        max_bytes=None if max_bytes is None else max_bytes - (unfinished - freed),
        keep_days=keep_days,
        handed_out_s=handed_out_s,
    )
    if dry_run:
        return Pruned(chosen, freed + sum(entry.bytes for entry in chosen))
    removed = []
    for entry in chosen:
        since = now - handed_out_s
        size = None
        with suppress(UsageError):  # files that are not dscache's were added since
            size = home.remove(entry.key, force=False, unless_used_since=since)
        if size is not None:
            removed.append(entry)
            freed += size
    home.remove_dangling_aliases()
    return Pruned(removed, freed)


def make_room(
    home: Home, now: float, whole: int, needed: int, limit: int, note: Callable[[str], None]
) -> None:
    """Remove the least recently used datasets until a new one fits into the limit.

    If that is not enough, `note` is called and the download goes ahead: the user has waited for the
    dataset. Nothing is removed for a dataset that cannot fit into the limit or on the disk.

    Args:
        home: the cache.
        now: Unix time.
        whole: size of the dataset in bytes.
        needed: how many of them are not on disk yet.
        limit: the limit in bytes.
        note: called with a message for people.

    Raises NoSpace if the disk cannot hold the dataset.
    """
    from ..download.download import check_space

    if whole > limit:
        note(
            f"the dataset ({format_bytes(whole)}) is larger than the cache_limit of "
            f"{format_bytes(limit)}: nothing was removed to make room"
        )
        return
    total = sum(entry.bytes for entry in home.entries()) + unfinished_bytes(home) + needed
    if total <= limit:
        return
    planned = prune(home, now, max_bytes=limit - needed, dry_run=True)
    check_space(home.datasets, needed, planned.freed_bytes)
    pruned = prune(home, now, max_bytes=limit - needed)
    for entry in pruned.removed:
        note(f"removed {entry.key} ({format_bytes(entry.bytes)}) to make room (cache_limit)")
    left_bytes = total - pruned.freed_bytes
    if left_bytes > limit:
        note(
            f"the cache will hold {format_bytes(left_bytes)}, more than its cache_limit of "
            f"{format_bytes(limit)}: the rest is pinned, in use, unfinished, damaged, was handed "
            "out recently, or has other files beside it (`dscache cache ls`)"
        )


def unfinished_bytes(home: Home) -> int:
    """Return the size of all unfinished downloads."""
    return sum(map(size_of, leftovers(home.datasets)))
