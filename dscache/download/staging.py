"""Hidden folders beside the destination of a download, one for each zip etag.

.<name>.<etag>.tmp   members and `.part` files; a later download of that zip resumes from them
.<name>.<etag>.rest  files of a .tmp folder, set aside while the finished ones are moved
.<name>.<id>.old     a replaced dataset that is being deleted

On a network file system a lock may only be visible on its own machine, or not exist at all. So the
folder names contain the host name there: two machines may download the same dataset independently,
and the second one finds the dataset of the first in place.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ..errors import UsageError
from ..files import remove, size_of, sync
from ..folder import filesystems, locks
from ..folder.contents import LEFTOVER_SUFFIXES, MANIFEST, PARTIAL, TEMPORARY_SUFFIX
from ..terminal import logger
from ..units import format_bytes

_log = logger(__name__)

# Entered while existing files are removed; raises UsageError while a process reads them.
WithoutReaders = Callable[[], AbstractContextManager[object]]


@contextmanager
def staging_folder(destination: Path, etag: str) -> Iterator[Path]:
    """Create or resume the temporary folder for this destination and zip, locked.

    Folders of other etags are removed. The lock ends with the process, however it ends. Raises
    UsageError while another process is downloading to the same destination.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder = _path(destination, etag)
    handle = _lock(folder, destination)
    try:
        _recover(folder)
        if _log.isEnabledFor(logging.DEBUG) and any(folder.iterdir()):
            _log.debug("resuming in %s, which holds %s", folder, format_bytes(size_of(folder)))
        discard_leftovers(destination, keep=folder)
        yield folder
    finally:
        with suppress(OSError):  # not empty: kept for resuming; missing: renamed
            folder.rmdir()
        os.close(handle)


def discard_leftovers(destination: Path, *, keep: Path | None = None) -> int:
    """Remove the unused temporary folders of this destination; return their size in bytes."""
    folders = leftovers(destination.parent, destination.name)
    return sum(_discard(folder) for folder in folders if folder != keep)


def discard_old(parent: Path, *, before: float, dry_run: bool = False) -> int:
    """Remove the unused temporary folders in `parent` that have not changed since `before`.

    Args:
        parent: the folder that contains them.
        before: Unix time.
        dry_run: remove nothing.

    Returns their size in bytes.
    """
    freed = 0
    for path in leftovers(parent):
        with suppress(FileNotFoundError):  # removed or renamed by its owner
            if path.stat().st_mtime < before:
                freed += _discard(path, is_old=True, dry_run=dry_run)
    return freed


def leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Return the temporary folders in `parent`: those of one destination, or all."""
    prefix = "." if name is None else f".{name}."
    return [
        path
        for path in (parent.iterdir() if parent.is_dir() else ())
        if path.name.startswith(prefix)
        and path.name.endswith(LEFTOVER_SUFFIXES)
        and (name is None or "." not in _middle(path.name, name))
        and path.is_dir()
    ]


def move_whole(
    folder: Path, destination: Path, wanted: Collection[str], replacing: WithoutReaders | None
) -> None:
    """Rename the temporary folder to `destination`, with only the `wanted` files in it.

    Files of an earlier, larger download stay in the temporary folder, to be resumed. With
    `replacing`, an existing dataset is replaced: for a moment there is none, but never a mixture.

    Raises FileExistsError without `replacing`, if the destination exists.
    """
    rest = folder.with_suffix(".rest")
    for path in [path for path in folder.iterdir() if path.name not in wanted]:
        rest.mkdir(exist_ok=True)
        path.replace(rest / path.name)
    sync(folder)
    try:
        if replacing is not None:
            with replacing():
                old = destination.with_name(f".{destination.name}.{os.urandom(4).hex()}.old")
                destination.rename(old)
                folder.rename(destination)
                remove(old)
        else:
            folder.rename(destination)
    except OSError as error:
        _recover(folder)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(error.errno, error.strerror, str(destination)) from error
        raise
    if rest.is_dir():
        rest.rename(folder)
    sync(destination.parent)


def adopt(folder: Path, destination: Path, names: Collection[str]) -> None:
    """Move the named files of a damaged dataset into the temporary folder and remove the rest.

    The download checks the files and continues with them.
    """
    (destination / MANIFEST).unlink(missing_ok=True)  # first: from now on this is no dataset
    for name in names:
        with suppress(FileNotFoundError):
            (destination / name).replace(folder / name)
    remove(destination)


def move_into(folder: Path, destination: Path, names: Collection[str]) -> None:
    """Move finished files one by one into an existing dataset, replacing files of the same name."""
    for name in names:
        (folder / name).replace(destination / name)
    sync(destination)


@contextmanager
def protected(folder: Path) -> Iterator[None]:
    """Keep other processes from discarding a folder, even after it is renamed."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        locks.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def delete_files(folder: Path, names: Collection[str]) -> None:
    """Delete the named files of a temporary folder; missing ones are fine."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _discard(folder: Path, *, is_old: bool = False, dry_run: bool = False) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # without locks, another process or machine may be using a folder that is not old
        locked = locks.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if locked is False or (locked is None and not is_old):
            return 0
        size = size_of(folder)
        if not dry_run:
            remove(folder)
        return size
    finally:
        os.close(handle)


def _path(destination: Path, etag: str) -> Path:
    safe = re.sub(r"[^0-9A-Za-z-]", "-", etag)
    if filesystems.network_type(destination):
        safe = f"{safe}@{filesystems.host()}"
    return destination.with_name(f".{destination.name}.{safe}{TEMPORARY_SUFFIX}")


def _middle(leftover: str, name: str) -> str:
    return leftover.removeprefix(f".{name}.").rpartition(".")[0]


def _recover(folder: Path) -> None:
    """Undo what a process that died in `move_whole` had done: move the files that it had set aside
    back, and remove the descriptions it had written."""
    rest = folder.with_suffix(".rest")
    if rest.is_dir():
        for path in rest.iterdir():
            path.replace(folder / path.name)
        rest.rmdir()
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in (MANIFEST, PARTIAL):
            path.unlink()


def _lock(folder: Path, destination: Path) -> int:
    while True:
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if locks.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) is False:
            os.close(handle)
            raise UsageError(
                f"{destination}: another process is downloading to this folder; "
                "wait for it, or choose another folder"
            )
        if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
            with suppress(OSError):
                os.utime(folder)  # it is in use, so it is not old
            return handle
        os.close(handle)  # renamed by its owner before it was locked
