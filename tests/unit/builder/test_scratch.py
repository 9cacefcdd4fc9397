"""Scratch folders: removed at the end, and after their builder was killed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from dscache_builder.scratch import (
    SETTLED_S,
    end_of_file,
    remove_file,
    remove_left_over,
    scratch_folder,
)


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


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Somebody else's folder with a file in it."""
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "shard").write_bytes(b"x")
    return folder


def test_a_link_in_the_place_of_a_scratch_folder_is_not_followed(
    tmp_path: Path, precious: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with scratch_folder(root) as mine:
        mine.rename(tmp_path / "away")
        mine.symlink_to(precious)
    assert list(root.iterdir()) == []
    assert (precious / "shard").is_file()
    link = root / "dscache-build-killed"
    link.symlink_to(precious)
    remove_left_over(root, time.time() + 10 * SETTLED_S)
    assert (precious / "shard").is_file()


def test_links_in_a_scratch_folder_are_not_followed(tmp_path: Path, precious: Path) -> None:
    with scratch_folder(tmp_path) as mine:
        (mine / "shards").symlink_to(precious)
        remove_file(mine / "shards" / "shard")
    assert not mine.exists()
    assert (precious / "shard").is_file()


def test_an_unreadable_scratch_folder_is_removed(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as mine:
        inner = mine / "work" / "inner"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        for folder in (inner, inner.parent, mine):
            folder.chmod(0)
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_scratch_folder_is_no_error(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as mine:
        shutil.rmtree(mine)
        remove_file(mine / "shards" / "shard")
        assert end_of_file(mine / "handler.log", 9) == ""


def test_only_a_file_is_read_as_a_log(tmp_path: Path, precious: Path) -> None:
    (tmp_path / "log").write_bytes("äbc".encode())
    (tmp_path / "link").symlink_to(precious / "shard")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    ends = {path.name: end_of_file(path, 3) for path in tmp_path.iterdir()}
    assert ends == {"log": "\ufffdbc", "link": "", "pipe": "", "precious": ""}
