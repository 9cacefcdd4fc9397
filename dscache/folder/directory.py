"""The local cache writes, moves and deletes through this module only.

A `Directory` is reached through its open handle, and no link in it is followed: whatever somebody
puts in place of the folder or of a file meanwhile, nothing outside is touched. A file is written to
only if it has no other name, since a hard link may be the user's own copy.

Folders are never removed with whatever is in them. `foreign_names` finds what dscache did not put
there, `require_own` refuses to go on with it, and `discard` deletes files by name and then the
folder, if it is empty.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UsageError
from ..files import write_at
from . import locks
from .contents import MANIFEST, PART_SUFFIX

_DESCRIPTION = re.compile(r"(?:manifest|partial)\.json|\.(?:manifest|partial)\.json\.\d+")
_MEMBER = re.compile(r"dataset_info\.json|features\.json|.+\.tfrecord-\d+-of-\d+")
SHOWN_NAMES = 5


class Directory:
    """An open directory; use as a context manager, or `close` it.

    `path` is where it was opened, for messages and for renaming it.

    Raises UsageError if there is a link or a file, FileNotFoundError if there is nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.handle = os.open(path, flags)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            kind = "a link" if path.is_symlink() else "no folder"
            raise UsageError(
                f"{path}: is {kind}, and dscache did not make it; move it away"
            ) from None

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle, which also ends its lock."""
        os.close(self.handle)

    def lock(self) -> bool | None:
        """Keep other processes from discarding it, even after it is renamed; as `locks.flock`."""
        return locks.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_at(self, path: Path) -> bool:
        """Whether `path` is this directory, and not something else that has taken its place."""
        try:
            return os.path.samestat(os.fstat(self.handle), path.lstat())
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """Return the names of everything in it, sorted."""
        return sorted(os.listdir(self.handle))  # noqa: PTH208  a Path has no handle

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of a file or link in it, None if it is missing."""
        try:
            return os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def size(self) -> int:
        """Return the total size in bytes of the files in it."""
        found = (self.status(name) for name in self.names())
        return sum(each.st_size for each in found if each and stat.S_ISREG(each.st_mode))

    def open_file(self, name: str) -> int:
        """Open a file for reading and writing, made if it is missing; return the descriptor.

        What is no file, or has other names too, is left as it is and gets a new file in its place.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self._naming_it():
            try:
                file = os.open(name, flags, 0o644, dir_fd=self.handle)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENXIO):  # of a link, of a socket
                    raise
            else:
                found = os.fstat(file)
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                    return file
                os.close(file)
            self.unlink(name)
            return os.open(name, flags | os.O_EXCL, 0o644, dir_fd=self.handle)

    def replace(self, name: str, to: Directory, new_name: str | None = None) -> None:
        """Move a file, in place of one of that name. Raises FileNotFoundError."""
        with self._naming_it():
            os.replace(name, new_name or name, src_dir_fd=self.handle, dst_dir_fd=to.handle)

    def unlink(self, name: str) -> None:
        """Delete a file or link; a missing one is fine."""
        with self._naming_it(), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.handle)

    def write(self, name: str, content: bytes) -> None:
        """Replace a file atomically, see `files.write_file`."""
        with self._naming_it():
            write_at(self.handle, name, content)

    def sync(self) -> None:
        """fsync it, so that renames in it survive a power failure."""
        os.fsync(self.handle)

    @contextmanager
    def _naming_it(self) -> Iterator[None]:
        """Make an OSError name the file with this folder."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.path / (error.filename or ""))
            raise


def foreign_names(folder: Directory, members: Collection[str] | None = None) -> list[str]:
    """Return the names in a dataset's folder or an unfinished download that dscache did not put
    there.

    `members` are the names of the dataset's members. None reads the folder's manifest; without one,
    shards and descriptions are told by the form of their names.
    """
    known = {*(members or ()), *(manifest_members(folder) or ())}
    return [name for name in folder.names() if not _is_own(folder, name, known)]


def require_own(folder: Directory, members: Collection[str] | None = None) -> list[str]:
    """Return the names of all files in the folder, as `foreign_names` finds none that is foreign.

    Raises UsageError, naming the files, if it does.
    """
    names = folder.names()
    foreign = foreign_names(folder, members)
    if foreign:
        more = len(foreign) - SHOWN_NAMES
        shown = ", ".join(foreign[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
        raise UsageError(
            f"{folder.path}: holds files that are not part of the dataset ({shown}); dscache "
            "deletes only its own files: move them elsewhere, then try again"
        )
    return names


def discard(folder: Directory, path: Path, names: Collection[str]) -> None:
    """Delete the named files of a folder, which is at `path`, and the folder if it is empty then.

    The manifest goes last: until then it tells which files are the dataset's.
    """
    for name in sorted(names, key=lambda name: name == MANIFEST):
        folder.unlink(name)
    with suppress(FileNotFoundError):
        try:
            path.rmdir()
        except OSError as error:  # something else is in it, or it is somebody's link by now
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise


def manifest_members(folder: Directory) -> list[str] | None:
    """Return the names of the members in the folder's manifest; None without a readable one."""
    try:
        file = os.open(MANIFEST, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.handle)
        with os.fdopen(file, "rb") as opened:
            return [str(member["name"]) for member in json.loads(opened.read())["members"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_own(folder: Directory, name: str, known: Collection[str]) -> bool:
    member = name.removesuffix(PART_SUFFIX)
    is_member = member in known if known else _MEMBER.fullmatch(member)
    if not is_member and not _DESCRIPTION.fullmatch(name):
        return False
    found = folder.status(name)
    return found is None or not stat.S_ISDIR(found.st_mode)
