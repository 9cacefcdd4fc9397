"""What an attempt needs from handler code: from a spec to shards on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from dscache.spec import Spec

from .hosting.messages import Event, PlanSummary

Heartbeat = Callable[[], None]


class Session(Protocol):
    """An open spec: its handler is imported and its options are valid."""

    @property
    def resolved(self) -> Spec:
        """The spec with the handler's defaults added and neutral options removed."""

    @property
    def lock_digest(self) -> str:
        """Digest of the environment's lock."""

    @property
    def environment_s(self) -> float:
        """Seconds spent on making the environment and starting the handler."""

    def plan(self) -> PlanSummary:
        """The shards, and a digest of all that affects their bytes. Raises HandlerFailure."""

    def build(self, indices: Iterable[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        """Build these shards; yields an event at least once a second."""

    def raw_changes(self, exact: str) -> str:
        """What of the raw data has changed since `plan`; "" if nothing has.

        With `exact`, a revision, all of the raw data counts, otherwise what the samples and the
        handler declare.
        """

    def features(self) -> dict[str, Any]:
        """The features.json document; for plain handlers after the first shard."""

    def preview(self, count: int, to: Path) -> str:
        """Write a contact sheet (PNG) of the first examples; return a line of statistics."""

    def log_tail(self) -> str:
        """The end of the handler's output."""


class Engine(Protocol):
    """Opens specs."""

    def open(self, spec: Spec, heartbeat: Heartbeat) -> AbstractContextManager[Session]:
        """Make the environment and start the handler. Raises HandlerFailure.

        `heartbeat` is called at least once a second during this call and every long call of the
        session; an exception that it raises ends that call.
        """
