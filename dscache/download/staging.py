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
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ..canonical import KEY
from ..errors import UsageError
from ..files import sync
from ..folder import filesystems
from ..folder.contents import LEFTOVER_SUFFIXES, MANIFEST, PARTIAL, TEMPORARY_SUFFIX
from ..folder.directory import Directory, discard, require_own
from ..terminal import logger
from ..units import format_bytes

_log = logger(__name__)

_SUFFIXES = "|".join(map(re.escape, LEFTOVER_SUFFIXES))
_LEFTOVER = re.compile(rf"\.(.+)\.[^.]*(?:{_SUFFIXES})")  # .<name>.<etag>.tmp

# Entered while existing files are removed; raises UsageError while a process reads them.
WithoutReaders = Callable[[], AbstractContextManager[object]]


@contextmanager
def staging_folder(destination: Path, etag: str) -> Iterator[Directory]:
    """Create or resume the temporary folder for this destination and zip, locked.

    Folders of other etags are removed. The lock ends with the process, however it ends. Raises
    UsageError while another process is downloading to the same destination, and if the destination
    or the temporary folder is a link or a file.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        Directory(destination).close()
    with _locked(_path(destination, etag), destination) as folder:
        try:
            _recover(folder)
            if _log.isEnabledFor(logging.DEBUG) and folder.names():
                held = format_bytes(folder.size())
                _log.debug("resuming in %s, which holds %s", folder.path, held)
            discard_leftovers(destination, keep=folder.path)
            yield folder
        finally:
            with suppress(OSError):  # not empty: kept for resuming; missing: renamed
                folder.path.rmdir()


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
    """Return the temporary folders in `parent`: those of one destination, or of all keys."""
    return [
        path
        for path in (parent.iterdir() if parent.is_dir() else ())
        if (found := _LEFTOVER.fullmatch(path.name))
        and (found[1] == name if name is not None else KEY.fullmatch(found[1]))
        and path.is_dir()
        and not path.is_symlink()
    ]


def size_of(path: Path) -> int:
    """Return the size in bytes of a temporary folder; 0 if it has been removed or renamed."""
    try:
        with Directory(path) as folder:
            return folder.size()
    except (FileNotFoundError, UsageError):
        return 0


def move_whole(
    folder: Directory, destination: Path, wanted: Collection[str], replacing: WithoutReaders | None
) -> None:
    """Rename the temporary folder to `destination`, with only the `wanted` files in it.

    Files of an earlier, larger download stay in the temporary folder, to be resumed. With
    `replacing`, an existing dataset is replaced: for a moment there is none, but never a mixture.

    Raises FileExistsError without `replacing`, if the destination exists; UsageError if files that
    are not dscache's are in a dataset that is to be replaced.
    """
    unwanted = [name for name in folder.names() if name not in wanted]
    if unwanted:
        _rest(folder).mkdir(exist_ok=True)
        with Directory(_rest(folder)) as rest:
            for name in unwanted:
                folder.replace(name, rest)
    folder.sync()
    try:
        if replacing is not None:
            with replacing(), Directory(destination) as existing:
                _replace(existing, folder)
        else:
            _rename(folder, folder.path, destination)
    except (OSError, UsageError) as error:
        _recover(folder)
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(error.errno, error.strerror, str(destination)) from error
        raise
    if unwanted:
        _rest(folder).rename(folder.path)
    sync(destination.parent)


def adopt(folder: Directory, destination: Path, names: Collection[str]) -> None:
    """Move the named files of a damaged dataset into the temporary folder and remove the rest.

    The download checks the files and continues with them. Raises UsageError if other files than
    those of a dataset with these members are there.
    """
    with suppress(FileNotFoundError), Directory(destination) as damaged:
        present = require_own(damaged, names)
        damaged.unlink(MANIFEST)  # first: from now on this is no dataset
        for name in names:
            with suppress(FileNotFoundError):
                damaged.replace(name, folder)
        discard(damaged, destination, present)


def require_replaceable(destination: Path) -> None:
    """Raise UsageError if files that are not dscache's are in a dataset that is to be replaced."""
    with suppress(FileNotFoundError), Directory(destination) as existing:
        require_own(existing)


def move_into(folder: Directory, existing: Directory, names: Collection[str]) -> None:
    """Move finished files one by one into an existing dataset, replacing files of the same name."""
    for name in names:
        folder.replace(name, existing)
    existing.sync()


def _replace(existing: Directory, folder: Directory) -> None:
    """Replace a dataset by a finished temporary folder."""
    destination = existing.path
    old = destination.with_name(f".{destination.name}.{os.urandom(4).hex()}.old")
    _rename(existing, destination, old)
    try:
        present = require_own(existing)  # after the rename: nobody finds it any more
        _rename(folder, folder.path, destination)
    except (OSError, UsageError):
        old.rename(destination)
        raise
    discard(existing, old, present)


def _rename(folder: Directory, path: Path, to: Path) -> None:
    """Rename an open folder. Raises UsageError if something else has taken its place."""
    if not folder.is_at(path):
        raise UsageError(f"{path}: another process has replaced it; get the dataset again")
    path.rename(to)


def _discard(path: Path, *, is_old: bool = False, dry_run: bool = False) -> int:
    with suppress(FileNotFoundError, UsageError), Directory(path) as folder:
        # without locks, another process or machine may be using a folder that is not old
        locked = folder.lock()
        if locked is False or (locked is None and not is_old):
            return 0
        present, size = require_own(folder), folder.size()
        if not dry_run:
            discard(folder, path, present)
        return size
    return 0


def _path(destination: Path, etag: str) -> Path:
    safe = re.sub(r"[^0-9A-Za-z-]", "-", etag)
    if filesystems.network_type(destination):
        safe = f"{safe}@{filesystems.host()}"
    return destination.with_name(f".{destination.name}.{safe}{TEMPORARY_SUFFIX}")


def _rest(folder: Directory) -> Path:
    return folder.path.with_suffix(".rest")


def _recover(folder: Directory) -> None:
    """Undo what a process that died in `move_whole` had done: move the files that it had set aside
    back, and remove the descriptions it had written."""
    with suppress(FileNotFoundError), Directory(_rest(folder)) as rest:
        for name in rest.names():
            rest.replace(name, folder)
        rest.path.rmdir()
    for name in folder.names():
        if name.startswith(".") or name in (MANIFEST, PARTIAL):
            folder.unlink(name)


def _locked(path: Path, destination: Path) -> Directory:
    while True:
        path.mkdir(exist_ok=True)
        folder = Directory(path)
        if folder.lock() is False:
            folder.close()
            raise UsageError(
                f"{destination}: another process is downloading to this folder; "
                "wait for it, or choose another folder"
            )
        if folder.is_at(path):
            with suppress(OSError):
                os.utime(folder.handle)  # it is in use, so it is not old
            return folder
        folder.close()  # renamed by its owner before it was locked
