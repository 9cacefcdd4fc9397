"""What a run needs of handler code: from a spec to shards on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from dscache.spec import Spec

from .hosting.messages import Event, PlanSummary

Heartbeat = Callable[[], None]


class Session(Protocol):
    """One spec, opened: its handler is imported and its options are valid."""

    @property
    def resolved(self) -> Spec:
        """The spec with the handler's defaults folded in and neutral options dropped."""

    @property
    def lock_digest(self) -> str:
        """Digest of the environment's lock."""

    @property
    def environment_s(self) -> float:
        """Seconds it took to make the environment and to start the handler."""

    def plan(self) -> PlanSummary:
        """The shards, and a digest of all that decides their bytes. Raises HandlerFailure."""

    def build(self, indices: Iterable[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        """Build these shards; something is yielded at least once a second."""

    def features(self) -> dict[str, Any]:
        """The features.json document; for plain handlers after the first shard."""

    def preview(self, count: int, to: Path) -> str:
        """Write a contact sheet of the first examples; returns a line of statistics."""

    def log_tail(self) -> str:
        """The end of what the handler printed."""


class Engine(Protocol):
    """Opens specs."""

    def open(self, spec: Spec, heartbeat: Heartbeat) -> AbstractContextManager[Session]:
        """Make the environment and start the handler. Raises HandlerFailure.

        `heartbeat` is called at least once a second during this and during every long call of the
        session; what it raises ends that call.
        """
