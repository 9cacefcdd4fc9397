"""Check that a server program sends notifications and honours `If-None-Match`.

Published builds of the server accept listeners but send them nothing, and old ones ignore
`If-None-Match`. Both report that they are healthy, so the program is run and tested.
"""

from __future__ import annotations

import queue
import tempfile
import time
from pathlib import Path

from ..errors import DscacheError, PreconditionFailed
from ..protocol.layout import DATASETS
from ..store.notifications import Connected, Created, Listener, Signal, Unsupported
from ..store.s3 import Store
from .errors import StackError
from .localstore import LocalStore
from .record import Binary

EVENT_TIMEOUT_S = 12.0
OBJECT = f"{DATASETS}probe.ready"


def identity(binary: Path) -> Binary:
    """Return the program's identity; while it is the same, the result of `check` holds."""
    status = binary.stat()
    return Binary(str(binary), status.st_size, status.st_mtime_ns)


def check(binary: Path) -> None:
    """Run the program in an empty directory and test it. Raises StackError."""
    with tempfile.TemporaryDirectory(prefix="dscache-probe-") as scratch:
        store = LocalStore(Path(scratch), binary)
        try:
            with store:
                _check_events(store)
                _check_conditions(Store(store.config))
        except DscacheError as error:
            raise StackError(f"{binary} is not usable as the store: {error}") from error


def _check_events(store: LocalStore) -> None:
    signals: queue.Queue[Signal] = queue.Queue()
    with Listener(store.client_config, DATASETS, signals.put):
        _expect(signals, Connected, "it accepts listeners but sends them nothing")
        Store(store.builder_config).put(OBJECT, b"{}", if_none_match=True)
        _expect(signals, Created, "it sends no notification when an object is written")


def _expect(signals: queue.Queue[Signal], kind: type[Signal], problem: str) -> None:
    """Wait for a signal of this kind; raise StackError with `problem` if none comes."""
    deadline = time.monotonic() + EVENT_TIMEOUT_S
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            signal = signals.get(timeout=left_s)
        except queue.Empty:
            break
        if isinstance(signal, kind):
            return
        if isinstance(signal, Unsupported):
            raise StackError(f"{problem} ({signal.reason})")
    raise StackError(problem)


def _check_conditions(store: Store) -> None:
    try:
        store.put(OBJECT, b"[]", if_none_match=True)
    except PreconditionFailed:
        return
    raise StackError("it overwrites an object despite If-None-Match")
