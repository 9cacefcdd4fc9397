"""The folder with the raw data, as handlers see it."""

from __future__ import annotations

import glob
import os
from pathlib import Path, PurePosixPath

from dscache_sdk.errors import RawDataError


class RawData:
    """Files below one folder, by their paths relative to it (with ``/``).

    Attributes:
        root: the folder.
        patterns: what `files` was asked for so far; named when nothing was found.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.patterns: list[str] = []

    def files(self, *patterns: str) -> list[str]:
        """Paths of the files that match any of the glob patterns, sorted, each once.

        ``**`` stands for any depth. Hidden files and folders (``.DS_Store``, ``._photo.jpg``)
        are left out, as a shell does. Links are followed: the folder is the operator's.

        Raises:
            RawDataError: the folder does not exist, or a file's name is not Unicode.
        """
        if not self.root.is_dir():
            raise RawDataError(f"there is no folder {self.root} with raw data")
        found: set[str] = set()
        for pattern in patterns or ("**/*",):
            self.patterns.append(pattern)
            found.update(self._matches(pattern))
        return sorted(found)

    def _matches(self, pattern: str) -> list[str]:
        if ".." in PurePosixPath(pattern).parts or pattern.startswith("/"):
            raise RawDataError(f"the pattern '{pattern}' leaves the raw data")
        # Not Path.glob: it yields hidden files too, and it builds a Path for every one.
        every = glob.iglob(pattern, root_dir=str(self.root), recursive=True)  # noqa: PTH207
        names = [name for name in every if (self.root / name).is_file()]
        for name in names:
            if not _is_unicode(name):
                raise RawDataError(f"the name of the file {name!r} is not Unicode; rename it")
        return [name.replace(os.sep, "/") for name in names]

    def path(self, relative: str) -> Path:
        """The path of one file. Only text is looked at: a link below the root may lead outside.

        Raises:
            RawDataError: the path is absolute or climbs out with ``..``.
        """
        parts = PurePosixPath(relative).parts
        if not parts or relative.startswith("/") or ".." in parts or "\0" in relative:
            raise RawDataError(f"'{relative}' is not a path below the raw data")
        return self.root / relative

    def __truediv__(self, relative: str) -> Path:
        return self.path(relative)

    def stat(self, relative: str) -> tuple[int, int] | None:
        """(size in bytes, mtime in ns) of a file; None when there is no such file."""
        try:
            status = self.path(relative).stat()
        except (OSError, ValueError, RawDataError):
            return None
        return status.st_size, status.st_mtime_ns

    def __repr__(self) -> str:
        return f"RawData('{self.root}')"


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
