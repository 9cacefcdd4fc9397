"""What every attempt of one builder uses, and how an attempt ends."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from dscache.store.objects import Objects

from ..engine import Engine
from .progress import Reporter
from .quarantine import Quarantine


class Outcome(enum.Enum):
    """How an attempt ended."""

    HELD = "held by another builder"
    LOST = "claim lost"
    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"


@dataclass
class AttemptContext:
    """The builder's side of an attempt: its store, its engine, its name, its clock.

    Attributes:
        uploads: executor for parts; it must outlive the attempts.
        owner: `<builder id>:<process nonce>`, as claims carry it.
        builder: the builder's name for people.
        unique: returns a new nonce.
        stopping: whether the daemon shuts down.
        scratch_bytes: finished shards that may wait for their upload, in bytes.
        reporter: makes the reporter of a key.
        quarantine: of the keys whose last builder died.
    """

    store: Objects
    engine: Engine
    uploads: Executor
    owner: str
    builder: str
    unique: Callable[[], str]
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    scratch_bytes: int = 2 << 30
    reporter: Callable[[str], Reporter] = lambda _: Reporter()
    quarantine: Quarantine = field(default_factory=Quarantine)
