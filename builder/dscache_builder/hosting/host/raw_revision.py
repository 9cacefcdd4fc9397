"""The revision of a folder with raw data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3


class Survey(NamedTuple):
    """A folder's content: a digest of paths, sizes and mtimes; number of files; total bytes."""

    revision: str
    files: int
    size: int


def survey(root: Path) -> Survey:
    """Stat all files below `root`; no file is opened.

    The revision has 32 hex digits; it is "" if there is no such folder.
    """
    if not root.is_dir():
        return Survey("", 0, 0)
    digest, files, total = blake3(), 0, 0
    for path, size, mtime_ns in _files(str(root), ""):
        digest.update(f"{path}\0{size}\0{mtime_ns}\n".encode("utf-8", "surrogateescape"))
        files += 1
        total += size
    return Survey(digest.hexdigest()[:32], files, total)


def raw_revision(root: Path) -> str:
    """The revision alone (see `survey`)."""
    return survey(root).revision


def _files(folder: str, prefix: str) -> Iterator[tuple[str, int, int]]:
    """Files below a folder in a fixed order; links to folders are not followed."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, f"{name}/")
        elif entry.is_file():
            status = entry.stat()
            yield name, status.st_size, status.st_mtime_ns
