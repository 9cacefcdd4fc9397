"""The state of a key, derived from the objects in the bucket; docs/protocol.md#states. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

from .manifests import Alias, Failure, Live, Progress, Ready


class State(enum.Enum):
    """State of a key, as `dscache status` shows it."""

    READY = "ready"
    ALIAS = "alias"
    BUILDING = "building"
    REQUESTED = "requested"
    FAILED = "failed"
    ABSENT = "absent"


def state_of(
    ready: Ready | None,
    failures: Sequence[Failure],
    requests: Collection[object],
    progress: Progress | None,
    now: float,
) -> State:
    """Return the first that applies: READY (live), BUILDING (a request, and progress that has not
    expired), REQUESTED, FAILED, ABSENT.

    `requests` are the outstanding requests; `now` is Unix time by the server's clock. An alias has
    no state of its own: its dataset has the key that it names.
    """
    if isinstance(ready, Live):
        return State.READY
    if isinstance(ready, Alias):
        return State.ALIAS
    if requests:
        building = progress is not None and progress.expires_at > now
        return State.BUILDING if building else State.REQUESTED
    return State.FAILED if failures else State.ABSENT
