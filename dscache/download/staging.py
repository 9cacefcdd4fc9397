"""Hidden folders beside a destination in which a download is prepared, one for each zip etag.

.<name>.<etag>.tmp   members and `.part` files; what a later download of that zip goes on with
.<name>.<etag>.rest  the same, set aside for the moment in which the finished part is moved
.<name>.<id>.old     a replaced dataset on its way out

On a network file system a lock may hold on its machine alone, or not at all. So the folders carry
the machine's name there: two machines may download the same, each for itself, and the second finds
the first's dataset in place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ..errors import UsageError
from ..files import remove, size_of, sync
from ..folder import filesystems, locks
from ..folder.contents import LEFTOVER_SUFFIXES, MANIFEST, PARTIAL, TEMPORARY_SUFFIX

# Entered while existing files are removed; raises UsageError while somebody reads them.
WithoutReaders = Callable[[], AbstractContextManager[object]]


@contextmanager
def staging_folder(destination: Path, etag: str) -> Iterator[Path]:
    """The temporary folder for this destination and zip, locked; those of other etags are removed.

    The lock ends with the process, however it ends. Raises UsageError when another process is
    downloading to the same place.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder = _path(destination, etag)
    handle = _lock(folder, destination)
    try:
        _recover(folder)
        discard_leftovers(destination, keep=folder)
        yield folder
    finally:
        with suppress(OSError):  # not empty: kept for resuming; not there: renamed into place
            folder.rmdir()
        os.close(handle)


def discard_leftovers(destination: Path, *, keep: Path | None = None) -> int:
    """Remove temporary folders of this destination that nobody is using; returns their bytes."""
    found = leftovers(destination.parent, destination.name)
    return sum(_discard(path) for path in found if path != keep)


def discard_old(parent: Path, *, before: float, dry_run: bool = False) -> int:
    """Remove the temporary folders in `parent` that nobody uses and that were not changed since
    `before` (Unix time); returns their bytes. A dry run only adds those up."""
    freed = 0
    for path in leftovers(parent):
        with suppress(FileNotFoundError):  # its owner was quicker
            if path.stat().st_mtime < before:
                freed += _discard(path, surely_unused=True, dry_run=dry_run)
    return freed


def leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Temporary folders in `parent`: of one destination, or of all of them."""
    begin = "." if name is None else f".{name}."
    return [
        path
        for path in (parent.iterdir() if parent.is_dir() else ())
        if path.name.startswith(begin)
        and path.name.endswith(LEFTOVER_SUFFIXES)
        and (name is None or "." not in _middle(path.name, name))
        and path.is_dir()
    ]


def move_whole(
    folder: Path, destination: Path, wanted: Collection[str], replacing: WithoutReaders | None
) -> None:
    """Rename the temporary folder into place with just the `wanted` files in it.

    Files of an earlier, larger download that was broken off stay behind for when it is resumed.
    With `replacing` a dataset that is there already is replaced: for a moment neither is there,
    never a mixture. Without it FileExistsError is raised.
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
    """Take these files of a damaged dataset over into the temporary folder, where fetching goes on
    with them (and checks them); whatever else is there is removed."""
    (destination / MANIFEST).unlink(missing_ok=True)  # from here on it is no dataset
    for name in names:
        with suppress(FileNotFoundError):
            (destination / name).replace(folder / name)
    remove(destination)


def move_into(folder: Path, destination: Path, names: Collection[str]) -> None:
    """Move finished files one by one into a dataset that is there; each replaces its namesake."""
    for name in names:
        (folder / name).replace(destination / name)
    sync(destination)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep others from discarding a folder, under whatever name it gets meanwhile."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        locks.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def drop(folder: Path, names: Collection[str]) -> None:
    """Remove these files of a temporary folder, as far as they are there."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _discard(folder: Path, *, surely_unused: bool = False, dry_run: bool = False) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # where nothing can be locked somebody may be at it, here or on another machine
        locked = locks.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if locked is False or (locked is None and not surely_unused):
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
    """Bring the folder to where fetching can go on: put back what a process that died in
    `move_whole` had set aside, remove the descriptions it had written."""
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
                f"{destination}: another process is downloading to this place; "
                "wait for it, or choose another folder"
            )
        if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
            with suppress(OSError):
                os.utime(folder)  # somebody goes on with it, so it is not old
            return handle
        os.close(handle)  # its owner finished and renamed it between our two steps
