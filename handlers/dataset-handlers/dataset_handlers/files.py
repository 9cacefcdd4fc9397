"""Pictures among the raw files, and the splits that folders stand for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from dscache_sdk import RawData

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SPLIT_FOLDERS = ("train", "val", "test")


def pictures_in(raw: RawData, *patterns: str) -> list[str]:
    """Relative paths of the pictures that match the glob patterns, sorted."""
    return [path for path in raw.files(*patterns) if path.lower().endswith(PICTURE_SUFFIXES)]


def split_folders(paths: Iterable[str]) -> bool:
    """Whether every path begins with a folder that is named like a split."""
    parts = (PurePosixPath(path).parts for path in paths)
    return all(len(part) > 1 and part[0] in SPLIT_FOLDERS for part in parts)
