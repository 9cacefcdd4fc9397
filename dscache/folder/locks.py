"""Locks on the datasets of the local cache, between processes. Light: a cache hit imports this.

They are flock locks on `locks/<key>.readers`, which readers share and the process that removes the
dataset takes exclusively, and on `locks/<key>.download`. Who opened a dataset's folder by a path
that leads to no cache (its `datasets` may be a link to another disk) locks the folder itself. A
lock ends with the process that holds it, however that ends, so a killed training run leaves none
behind.

Some network file systems support no locks (and say so); on others a lock is visible on its own
machine only. Both cases work: `download/staging.py` and `cache/eviction.py` allow for them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from _thread import allocate_lock  # importing `threading` would slow down every hit
from collections.abc import Callable
from pathlib import Path

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL})
LOCKS = "locks"  # the directory of the lock files; every other path is that of a folder
PAUSES_S = (0.0005, 0.001, 0.002, 0.004, 0.0)  # `is_held` holds a lock for some microseconds


class HeldLock:
    """A lock that is held until `release`, or until this object or the process ends.

    `handle` is the locked file descriptor; None stands for a lock that was not needed.
    """

    def __init__(self, handle: int | None) -> None:
        self._handle = handle

    def release(self) -> None:
        """Release the lock; releasing it twice is fine."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def keep_over_exec(self) -> None:
        """Keep holding the lock over `exec`, and in the programs that the new one starts."""
        if self._handle is not None:
            os.set_inheritable(self._handle, True)

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def acquire_shared(path: Path) -> HeldLock:
    """Take the lock as one of its readers; waits while another process removes the dataset.

    In a directory that is not writable nothing can be removed, so nothing is locked there; nor is a
    folder that is missing or cannot be read.
    """
    try:
        handle = _open(path)
    except OSError:
        if path.parent.name == LOCKS and os.access(path.parent.parent, os.W_OK):
            raise
        return HeldLock(None)
    flock(handle, fcntl.LOCK_SH)
    return HeldLock(handle)


def try_acquire(path: Path) -> HeldLock | None:
    """Take the lock exclusively, or return None when another process holds it.

    Tries for longer than `is_held` holds the lock to see whether it could.
    """
    handle = _open(path)
    for pause_s in PAUSES_S:
        if flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) is not False:
            return HeldLock(handle)
        time.sleep(pause_s)
    os.close(handle)
    return None


def acquire(path: Path, waiting: Callable[[], None] | None = None) -> HeldLock:
    """Take the lock exclusively; `waiting` is called once if another process holds it."""
    lock = try_acquire(path)
    if lock is not None:
        return lock
    if waiting is not None:
        waiting()
    handle = _open(path)
    flock(handle, fcntl.LOCK_EX)
    return HeldLock(handle)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock."""
    if not path.exists():
        return False
    try:
        lock = try_acquire(path)
    except PermissionError:
        return False
    if lock is not None:
        lock.release()
    return lock is None


def holders(path: Path, locks: Path = Path("/proc/locks")) -> list[int]:
    """Return the ids of this machine's processes that hold the lock, [] if that is unknown."""
    try:
        status = path.stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return []
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    rows = (line.split() for line in lines)  # 3: FLOCK ADVISORY READ 4711 fe:01:1234 0 EOF
    pids = {int(row[4]) for row in rows if device in row and "->" not in row}
    return sorted(pid for pid in pids if pid > 0)  # 0 and -1: of another container


def flock(handle: int, how: int) -> bool | None:
    """flock(2): False when another process has it (with LOCK_NB), None where locks do not exist."""
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
    if path.parent.name != LOCKS:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    path.parent.mkdir(parents=True, exist_ok=True)
    # for writing, since NFS requires that for an exclusive lock; the umask decides who may lock
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's file, or one that may not be created
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


# -- which lock belongs to which folder


def readers_lock(home: Path, key: str) -> Path:
    """The lock that the readers of a dataset share, below the cache directory `home`."""
    return home / LOCKS / f"{key}.readers"


def readers_lock_of(folder: Path) -> Path:
    """The readers' lock of a dataset folder, found by its path as given or with links resolved.

    It is the folder itself if neither path leads to a cache.
    """
    for place in (folder.absolute(), folder.resolve()):
        home = place.parent.parent
        signs = (home / LOCKS, home / "CACHEDIR.TAG")
        if place.parent.name == "datasets" and any(sign.exists() for sign in signs):
            return readers_lock(home, alias_target(place).name)
    return folder.resolve()


def alias_target(path: Path) -> Path:
    """The folder that an alias links to; any other path is its own target.

    An alias links to a name beside it. Any other link is the user's, for a folder on another disk.
    """
    try:
        target = path.readlink()
    except OSError:  # no link, or nothing there
        return path
    return path.with_name(target.name) if target == Path(target.name) else path


# -- one lock for each folder in a process, however many Dataset objects it has: paths that were
# handed out outlive their object, so the lock stays until every object of the folder is closed

_mutex = allocate_lock()
_retained: dict[Path, tuple[HeldLock, int]] = {}


def retain(path: Path) -> None:
    """Count one more user of a shared lock in this process; the first one acquires it."""
    mine = acquire_shared(path)
    with _mutex:
        lock, count = _retained.get(path, (mine, 0))
        _retained[path] = (lock, count + 1)
    if lock is not mine:
        mine.release()


def release(path: Path) -> None:
    """Count one user less of a retained lock; the last one releases it."""
    with _mutex:
        lock, count = _retained.pop(path, (None, 0))
        if lock is not None and count > 1:
            _retained[path] = (lock, count - 1)
            return
    if lock is not None:
        lock.release()
