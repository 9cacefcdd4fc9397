"""Scratch folders of builds. A later build removes the folder of a builder that was killed.

Handlers work in them, and may delete, replace or lock what is there. Nothing here follows a link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PREFIX = "dscache-build-"  # of no folder that somebody else makes in the same place
SETTLED_S = 60.0  # longer than it takes from making a folder to locking it


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Make a folder below `root`, locked while the block runs and removed at its end."""
    remove_left_over(root, time.time())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        with _locked(folder):
            yield folder
    finally:
        _remove(folder)


def end_of_file(path: Path, limit_bytes: int) -> str:
    """The end of a handler's log; "" if it has been deleted, or something else lies in its place.

    Neither a link is followed, nor the writer of a pipe waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return ""
            file.seek(max(0, status.st_size - limit_bytes))
            return file.read(limit_bytes).decode("utf-8", "replace")
    except OSError:
        return ""


def opened_log(path: Path) -> BinaryIO:
    """Open a handler's log for appending. Raises OSError if something else lies in its place."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file any more", str(path))
    return open(descriptor, "ab")  # noqa: PTH123 - a descriptor


def append_line(path: Path, text: str) -> None:
    """Append a line to a handler's log, if it is still one."""
    with contextlib.suppress(OSError), opened_log(path) as log:
        log.write(f"{text}\n".encode())


def remove_file(path: Path) -> None:
    """Delete a file, unless its folder was replaced by a link: then it is not ours."""
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.unlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, also if a handler has made parts of it unreadable, or it is a link now."""
    with contextlib.suppress(OSError):
        if folder.is_symlink():
            folder.unlink()
            return
        folder.chmod(stat.S_IRWXU)
        for parent, folders, _ in os.walk(folder):
            for inner in (Path(parent, name) for name in folders):
                if not inner.is_symlink():
                    inner.chmod(stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


def remove_left_over(root: Path, now: float) -> None:
    """Remove folders that no process has locked: the kernel releases the locks of a killed one.

    Locks rather than names decide, because several builders and `verify` may share `root`.
    """
    for folder in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, or already removed
            if now - folder.lstat().st_mtime >= SETTLED_S and not folder.is_symlink():
                with _locked(folder):
                    _remove(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder. Raises OSError if another process holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
