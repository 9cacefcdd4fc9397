"""The raw data's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dscache_sdk import RawData, RawDataError


@pytest.fixture
def raw(tmp_path: Path) -> RawData:
    for name in (
        "b/2.jpg",
        "a/1.jpg",
        "top.jpg",
        "a/x.txt",
        ".hidden.jpg",
        "a/._1.jpg",
        ".h/3.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "folder.jpg").mkdir()
    return RawData(tmp_path)


def test_files_are_sorted_relative_and_not_hidden(raw: RawData) -> None:
    assert raw.files("**/*.jpg") == ["a/1.jpg", "b/2.jpg", "top.jpg"]
    assert raw.files("*.jpg", "**/*.jpg", "a/*.txt") == ["a/1.jpg", "a/x.txt", "b/2.jpg", "top.jpg"]
    assert raw.files() == ["a/1.jpg", "a/x.txt", "b/2.jpg", "top.jpg"]
    assert raw.patterns == ["**/*.jpg", "*.jpg", "**/*.jpg", "a/*.txt", "**/*"]


def test_links_are_followed(raw: RawData, tmp_path: Path) -> None:
    (tmp_path / "a" / "link.jpg").symlink_to(tmp_path / "top.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    assert raw.files("**/*.jpg") == ["a/1.jpg", "a/link.jpg", "b/2.jpg", "top.jpg"]


def test_paths(raw: RawData, tmp_path: Path) -> None:
    assert (raw / "a/1.jpg").read_bytes() == b"a/1.jpg"
    assert raw.path("a/1.jpg") == tmp_path / "a" / "1.jpg"
    status = raw.stat("a/1.jpg")
    assert status is not None
    assert status[0] == 7
    assert raw.stat("nowhere") is None
    assert raw.stat("../x") is None


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", "a/..", "a\0b"])
def test_paths_stay_inside(raw: RawData, path: str) -> None:
    with pytest.raises(RawDataError, match="not a path below"):
        raw / path


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "a/../../*"])
def test_patterns_stay_inside(raw: RawData, pattern: str) -> None:
    with pytest.raises(RawDataError, match="reaches outside the raw data"):
        raw.files(pattern)


def test_names_that_are_not_unicode_are_refused(raw: RawData, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(RawDataError, match="not Unicode"):
        raw.files("**/*.jpg")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"there is no folder .*missing"):
        RawData(tmp_path / "missing").files("*")
