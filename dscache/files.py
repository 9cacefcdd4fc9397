"""Write files so that a crash leaves the old state or the new one, never a mixture."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PRIVATE = 0o600


def write_file(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replace a file atomically, and sync it to the disk first. Makes the folder if it is missing.

    With `mode` PRIVATE only the owner can ever read it. Raises OSError and keeps the old file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_at(folder, path.name, content, mode=mode)
    finally:
        os.close(folder)


def write_at(folder: int, name: str, content: bytes, *, mode: int = 0o666) -> None:
    """Do what `write_file` does, in an open folder. Writes to no file that exists: a link or hard
    link of that name is replaced, and its target keeps its content."""
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    _unlink(folder, temporary)  # of a process that had the same id and was killed
    try:
        handle = os.open(temporary, flags, mode, dir_fd=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _unlink(folder, temporary)
        raise


def sync(folder: Path) -> None:
    """fsync a folder, so that renames in it survive a power failure."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unlink(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
