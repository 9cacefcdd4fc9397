"""Datasets in a local cache, without a store."""

from __future__ import annotations

import os
from pathlib import Path

from dscache.cache.home import Home
from dscache.protocol import manifests
from dscache.protocol.manifests import Live, Member
from dscache.spec import Spec

NOW = 1_900_000_000.0
KEY = "photos_1.0.0_" + "a" * 32
OTHER = "photos_1.0.0_" + "b" * 32
MARKER = manifests.encode(
    Live(
        spec=Spec.of("photos", "1.0.0", {}),
        generation=0,
        zip_key="z",
        zip_etag="e",
        zip_size=3,
        seal="",
        members=[
            Member(name=f"{split}{index}", offset=0, size=1, crc32=0, digest="0" * 64, split=split)
            for split, index in (("train", 0), ("train", 1), ("val", 0))
        ],
    )
)


class Clock:
    """Stands still unless a test sets it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def put(home: Home, key: str = KEY, size: int = 100, used_at: float = NOW) -> Path:
    """A dataset folder as a download leaves it."""
    home.prepare()
    folder = home.datasets / key
    folder.mkdir()
    (folder / "x.tfrecord").write_bytes(bytes(size - 2))
    (folder / "manifest.json").write_bytes(b"{}")
    home.marks.mark_used(key, create=True)
    os.utime(home.directory / "used" / key, (used_at, used_at))
    return folder
