"""Locks on the datasets of the local cache. Light: no import costs.

flock on `locks/<key>.readers`: readers share it, who removes takes it exclusively; and on
`locks/<key>.download`. They end with the process that holds them, however it ends, so a killed
training never leaves one behind.

Some network file systems have no locks (they answer so), others have locks that only this machine
sees. Neither stops anybody: see `workspace` and `eviction` for what is done about it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL})
PAUSES_S = (0.0005, 0.001, 0.002, 0.004, 0.0)  # a look takes some microseconds


class Hold:
    """A lock that is held until `release`, the end of the process, or of this object."""

    def __init__(self, handle: int | None) -> None:
        self._handle = handle

    def release(self) -> None:
        """Let go; releasing twice is fine."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def inherit(self) -> None:
        """Stay held over `exec`, and by what the new program starts."""
        if self._handle is not None:
            os.set_inheritable(self._handle, True)

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
        handle = _open(path)
    except OSError:
        if os.access(path.parent.parent, os.W_OK):
            raise
        return Hold(None)
    lock(handle, fcntl.LOCK_SH)
    return Hold(handle)


def try_exclusive(path: Path) -> Hold | None:
    """Take the lock alone, or return None when somebody has it: for longer than `held` does, which
    takes it for a moment to see whether it can."""
    handle = _open(path)
    for pause_s in PAUSES_S:
        if lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) is not False:
            return Hold(handle)
        time.sleep(pause_s)
    os.close(handle)
    return None


def exclusive(path: Path, waiting: Callable[[], None] | None = None) -> Hold:
    """Take the lock alone; `waiting` is called if somebody has it, then it is waited for."""
    hold = try_exclusive(path)
    if hold is not None:
        return hold
    if waiting is not None:
        waiting()
    handle = _open(path)
    lock(handle, fcntl.LOCK_EX)
    return Hold(handle)


def held(path: Path) -> bool:
    """Whether somebody reads."""
    if not path.exists():
        return False
    try:
        hold = try_exclusive(path)
    except PermissionError:
        return False
    if hold is not None:
        hold.release()
    return hold is None


def who(path: Path, locks: Path = Path("/proc/locks")) -> list[int]:
    """The processes here that have the lock, as far as the kernel tells; [] when it does not."""
    try:
        there = path.stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return []
    device = f"{os.major(there.st_dev):02x}:{os.minor(there.st_dev):02x}:{there.st_ino}"
    found = (line.split() for line in lines)  # 3: FLOCK ADVISORY READ 4711 fe:01:1234 0 EOF
    held = {int(words[4]) for words in found if device in words and "->" not in words}
    return sorted(pid for pid in held if pid > 0)  # 0 and -1: of another container


def lock(handle: int, how: int) -> bool | None:
    """flock; False when somebody else has it (with LOCK_NB), None when there are no locks here."""
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    # for writing: NFS gives an exclusive lock on nothing else; by all whom the umask lets
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's, or one that may not be made
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
