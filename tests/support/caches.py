"""Datasets in a local cache, without a store."""

from __future__ import annotations

import os
from pathlib import Path

from dscache.cache.home import Home
from dscache.protocol import manifests
from dscache.protocol.manifests import Live, Member
from dscache.spec import Spec

NOW = 1_900_000_000.0
SHARD = "photos-train.tfrecord-00000-of-00001"
SPECS = {spec.key: spec for spec in (Spec.of("photos", "1.0.0", {"n": n}) for n in range(4))}
KEYS = tuple(SPECS)
KEY, OTHER = KEYS[:2]
MARKER = manifests.encode(
    Live(
        spec=SPECS[KEY],
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


def put(home: Home, key: str = KEY, size: int = 1000, used_at: float = NOW) -> Path:
    """A dataset folder as a download leaves it, of `size` bytes in all."""
    home.prepare()
    folder = home.datasets / key
    folder.mkdir()
    manifest = b'{"spec":%s,"members":[{"name":"x.tfrecord","size":%7d}]}'
    spec = SPECS[key].canonical
    shard_bytes = size - len(manifest % (spec, 0))
    assert shard_bytes >= 0, f"the manifest alone is larger: {-shard_bytes}"
    (folder / "x.tfrecord").write_bytes(bytes(shard_bytes))
    (folder / "manifest.json").write_bytes(manifest % (spec, shard_bytes))
    home.marks.mark_used(key, create=True)
    os.utime(home.directory / "used" / key, (used_at, used_at))
    return folder


def put_marker(folder: Path, without: frozenset[str] = frozenset()) -> None:
    """Make the folder one that holds the members of MARKER."""
    (folder / "manifest.json").write_bytes(MARKER)
    for name in {"train0", "train1", "val0"} - without:
        (folder / name).write_bytes(b"x")
