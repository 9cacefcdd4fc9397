"""Locks by which readers of a cached dataset keep it from being removed. Light: no import costs.

flock on `locks/<key>.readers`: readers share it, who removes takes it exclusively. It ends with the
process that holds it, however it ends, so a killed training never leaves one behind.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Hold:
    """A lock that is held until `release`, the end of the process, or of this object."""

    def __init__(self, handle: int | None) -> None:
        self._handle = handle

    def release(self) -> None:
        """Let go; releasing twice is fine."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def share(path: Path) -> Hold:
    """Take the lock as one of its readers; waits for somebody who is just removing the dataset.

    In a directory that cannot be written to nobody can remove anything, so nothing is locked there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        if os.access(path.parent.parent, os.W_OK):
            raise
        return Hold(None)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return Hold(handle)


def try_exclusive(path: Path) -> Hold | None:
    """Take the lock alone, or return None when somebody reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return Hold(handle)


def held(path: Path) -> bool:
    """Whether somebody reads."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
