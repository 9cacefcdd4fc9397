"""Which keys to build next, from a listing of `requests/`. Pure.

See docs/protocol.md#reconciliation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from dscache.protocol import layout
from dscache.store.objects import ListedObject


@dataclass(frozen=True)
class WaitingKey:
    """A requested key: its highest priority, and the time of its oldest request (Unix time)."""

    key: str
    priority: int
    since: float


def by_need(
    entries: Sequence[ListedObject], priority_of: Callable[[str, str], int]
) -> list[WaitingKey]:
    """The requested keys of a listing, the next one to build first.

    `priority_of(key, nonce)` reads a request's priority. It is called only if keys compete: a
    thousand requests of one key are not read.
    """
    keys = {request.key for entry in entries if (request := layout.parse_request(entry.name))}
    return in_order(entries, priority_of if len(keys) > 1 else lambda *_: 0)


def stray_cancels(entries: Iterable[ListedObject]) -> list[str]:
    """Names of cancels whose request was deleted: it was answered, and nonces are never reused."""
    names = {entry.name for entry in entries}
    cancels = [(name, layout.parse_cancel(name)) for name in names]
    return sorted(
        name
        for name, cancel in cancels
        if cancel and layout.request(cancel.key, cancel.nonce) not in names
    )


def in_order(
    entries: Iterable[ListedObject], priority_of: Callable[[str, str], int]
) -> list[WaitingKey]:
    """The requested keys by priority (highest first), then oldest request, then name."""
    waiting: dict[str, WaitingKey] = {}
    for entry in entries:
        request = layout.parse_request(entry.name)
        if request is None:
            continue
        before = waiting.get(request.key)
        priority = priority_of(request.key, request.nonce)
        waiting[request.key] = WaitingKey(
            request.key,
            max(priority, before.priority) if before else priority,
            min(entry.modified, before.since) if before else entry.modified,
        )
    return sorted(waiting.values(), key=lambda key: (-key.priority, key.since, key.key))


def startable(
    waiting: Iterable[WaitingKey],
    running: Collection[str],
    not_before: dict[str, float],
    now: float,
    slots: int,
) -> list[str]:
    """The keys to start now: not running, not paused until later, at most `slots`."""
    free = [
        key.key for key in waiting if key.key not in running and not_before.get(key.key, 0.0) <= now
    ]
    return free[: max(slots, 0)]
