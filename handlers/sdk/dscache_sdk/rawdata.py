"""The folder with the raw data, as handlers see it."""

from __future__ import annotations

import glob
import os
from pathlib import Path, PurePosixPath

from dscache_sdk.errors import RawDataError


class RawData:
    """The files below one folder, by relative paths with ``/``.

    Attributes:
        root: the folder.
        patterns: the patterns passed to `files` so far, for error messages.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.patterns: list[str] = []

    def files(self, *patterns: str) -> list[str]:
        """Paths of the files that match any of the glob patterns, sorted, without duplicates.

        ``**`` matches any depth. Hidden files and folders (``.DS_Store``, ``._photo.jpg``) are
        skipped, as in a shell. Links are followed: the operator controls the folder.

        Raises:
            RawDataError: the folder does not exist, or a file's name is not Unicode.
        """
        if not self.root.is_dir():
            raise RawDataError(f"there is no folder {self.root} with raw data")
        paths: set[str] = set()
        for pattern in patterns or ("**/*",):
            self.patterns.append(pattern)
            paths.update(self._matches(pattern))
        return sorted(paths)

    def _matches(self, pattern: str) -> list[str]:
        if ".." in PurePosixPath(pattern).parts or pattern.startswith("/"):
            raise RawDataError(f"the pattern '{pattern}' reaches outside the raw data")
        # Not Path.glob: it yields hidden files too, and makes a Path for each file.
        matches = glob.iglob(pattern, root_dir=str(self.root), recursive=True)  # noqa: PTH207
        names = [name for name in matches if (self.root / name).is_file()]
        for name in names:
            if not _is_unicode(name):
                raise RawDataError(f"the name of the file {name!r} is not Unicode; rename it")
        return [name.replace(os.sep, "/") for name in names]

    def path(self, relative: str) -> Path:
        """The path of one file. Links are not resolved, so a link may lead outside the folder.

        Raises:
            RawDataError: the path is absolute or contains ``..``.
        """
        parts = PurePosixPath(relative).parts
        if not parts or relative.startswith("/") or ".." in parts or "\0" in relative:
            raise RawDataError(f"'{relative}' is not a path below the raw data")
        return self.root / relative

    def __truediv__(self, relative: str) -> Path:
        return self.path(relative)

    def stat(self, relative: str) -> tuple[int, int] | None:
        """(size in bytes, mtime in ns) of a file; None if it does not exist."""
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
