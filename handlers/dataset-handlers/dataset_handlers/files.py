"""Find images among the raw files, and recognise split folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from dscache_sdk import RawData

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SPLIT_FOLDERS = ("train", "val", "test")


def images_in(raw: RawData, *patterns: str) -> list[str]:
    """Relative paths of the images that match the glob patterns, sorted."""
    return [path for path in raw.files(*patterns) if path.lower().endswith(IMAGE_SUFFIXES)]


def split_folders(paths: Iterable[str]) -> bool:
    """Whether every path begins with a folder named after a split."""
    parts = (PurePosixPath(path).parts for path in paths)
    return all(len(part) > 1 and part[0] in SPLIT_FOLDERS for part in parts)
