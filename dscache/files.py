"""Write and remove files so that a crash leaves the old state or the new one, never a mixture."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o600


def write_file(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replace a file atomically, and sync it to the disk first. Makes the folder if it is missing.

    With `mode` PRIVATE only the owner can ever read it. Raises OSError and keeps the old file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync(folder: Path) -> None:
    """fsync a folder, so that renames in it survive a power failure."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(folder: Path) -> None:
    """Remove a folder and its contents; another process may be removing it at the same time."""
    import shutil  # not at the top: a cache hit loads this module, and shutil loads four codecs

    while True:
        try:
            return shutil.rmtree(folder)
        except FileNotFoundError:
            if not folder.exists():
                return None


def size_of(folder: Path) -> int:
    """Total size in bytes of the files directly in a folder; files that vanish are not counted."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_size if entry.is_file() else 0
    except FileNotFoundError:
        return total
    return total
