"""Start and stop the builder of a local stack, as a program: it is never imported."""

from __future__ import annotations

import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from . import process
from .errors import StackError, with_tail
from .process import Process

READY_S = 20.0
GRACE_S = 40.0  # the builder releases its claims within 30 s
POLL_S = 0.2
REMOVED = ("DSCACHE_", "AWS_", "NOTIFY_SOCKET", "WATCHDOG_")


def start(
    config: Path, log: Path, environ: Mapping[str, str], remember: Callable[[Process], None]
) -> bool:
    """Start the builder and wait until it is ready; return whether it is.

    `remember` is called with the process before the wait, so that it is recorded even after Ctrl-C.
    Raises StackError with the end of the log if the builder exits instead.
    """
    argv = [sys.executable, "-m", "dscache_builder", "--config", str(config)]
    since = log.stat().st_size if log.is_file() else 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        name = f"dscache-{secrets.token_hex(8)}"
        notifications.bind(f"\0{name}")
        settings = {k: v for k, v in environ.items() if not k.startswith(REMOVED)}
        settings["NOTIFY_SOCKET"] = f"@{name}"
        started = process.spawn(argv, environ=settings, log=log)
        remember(started)
        ready = _wait_ready(notifications, started)
    if not ready and not process.alive(started):
        raise StackError(with_tail("the builder exited immediately", log, since))
    return ready


def stop(started: Process | None) -> bool:
    """Stop the builder, which releases its claims first. Returns False if it did not run."""
    return process.stop(started, grace_s=GRACE_S)


def _wait_ready(notifications: socket.socket, started: Process) -> bool:
    notifications.settimeout(POLL_S)
    deadline = time.monotonic() + READY_S
    while process.alive(started) and time.monotonic() < deadline:
        try:
            if b"READY=1" in notifications.recv(4096).splitlines():
                return True
        except TimeoutError:
            continue
    return False
