"""Scratch folders: removed at the end, and after their builder was killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dscache_builder.scratch import SETTLED_S, remove_left_over, scratch_folder


def age(folder: Path) -> None:
    long_ago = time.time() - 10 * SETTLED_S
    os.utime(folder, (long_ago, long_ago))


def test_what_a_killed_builder_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    killed, new, other = (
        tmp_path / name for name in ("dscache-build-killed", "dscache-build-new", "others")
    )
    for folder in (killed, new, other):
        folder.mkdir()
        (folder / "shard").write_bytes(b"x")
    age(killed)
    age(other)
    with scratch_folder(tmp_path) as mine:
        assert sorted(tmp_path.iterdir()) == sorted([mine, new, other])
        age(mine)
        remove_left_over(tmp_path, time.time())
        assert mine.is_dir(), "it is in use"
    assert sorted(tmp_path.iterdir()) == sorted([new, other])
