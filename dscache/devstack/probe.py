"""Whether a server program does what the protocol needs: stream events, refuse a second create.

Published builds of the server accept a listener and then send it nothing; old ones ignore
`If-None-Match`. Both look healthy, so the program is run once and tried.
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

PATIENCE_S = 12.0
NAME = f"{DATASETS}probe.ready"


def identity(binary: Path) -> Binary:
    """The program as it is now; the same again means that it need not be tried again."""
    status = binary.stat()
    return Binary(str(binary), status.st_size, status.st_mtime_ns)


def check(binary: Path) -> None:
    """Run the program on an empty directory and try it. Raises StackError saying what is wrong."""
    with tempfile.TemporaryDirectory(prefix="dscache-probe-") as scratch:
        store = LocalStore(Path(scratch), binary)
        try:
            with store:
                _check_events(store)
                _check_conditions(Store(store.config))
        except DscacheError as error:
            raise StackError(f"{binary} cannot be used as the store: {error}") from error


def _check_events(store: LocalStore) -> None:
    signals: queue.Queue[Signal] = queue.Queue()
    with Listener(store.client_config, DATASETS, signals.put):
        _await(signals, Connected, "it accepts listeners but sends them nothing")
        Store(store.builder_config).put(NAME, b"{}", if_none_match=True)
        _await(signals, Created, "it sends no event when an object is written")


def _await(signals: queue.Queue[Signal], kind: type[Signal], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
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
        store.put(NAME, b"[]", if_none_match=True)
    except PreconditionFailed:
        return
    raise StackError("it overwrites an object in spite of If-None-Match")
