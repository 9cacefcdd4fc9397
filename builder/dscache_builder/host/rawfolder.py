"""The revision of a folder with raw data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3


def raw_revision(root: Path) -> str:
    """Digest (32 hex digits) of the paths, sizes and times of change of all files below `root`.

    No file is opened. "" when there is no such folder.
    """
    if not root.is_dir():
        return ""
    digest = blake3()
    for path, size, mtime_ns in _files(str(root), ""):
        digest.update(f"{path}\0{size}\0{mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


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
