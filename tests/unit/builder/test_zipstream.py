"""The zip's bytes: what Python's zipfile and `unzip` read, small and beyond 4 GiB."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dscache.protocol.manifests import Member
from dscache_builder.attempt import zip_writer
from dscache_builder.attempt.parts import append_member


def archive(files: list[tuple[str, bytes]]) -> tuple[bytes, list[Member]]:
    members: list[Member] = []
    body = bytearray()
    for name, data in files:
        crc32 = zlib.crc32(data)
        append_member(members, name, len(data), crc32, "digest")
        body += zip_writer.local_header(name, len(data), crc32) + data
    return bytes(body) + zip_writer.central_directory(members), members


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("abcä-./", min_size=1, max_size=9), st.binary(max_size=99))))
def test_zipfile_reads_it(files: list[tuple[str, bytes]]) -> None:
    unique = list(dict(files).items())
    body, members = archive(unique)
    with zipfile.ZipFile(io.BytesIO(body)) as zipped:
        assert zipped.testzip() is None
        assert [(info.filename, zipped.read(info)) for info in zipped.infolist()] == unique
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in zipped.infolist())
    for (_, data), member in zip(unique, members, strict=True):
        assert body[member.offset : member.offset + member.size] == data


def test_an_empty_zip() -> None:
    body, _ = archive([])
    with zipfile.ZipFile(io.BytesIO(body)) as zipped:
        assert zipped.namelist() == []


@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1, 2**32, 5 * 2**30])
def test_zip64_where_a_size_or_an_offset_needs_it(tmp_path: Path, size: int) -> None:
    """A sparse file: a member of `size` zero bytes, then a small one behind it."""
    members: list[Member] = []
    append_member(members, "big", size, 0, "")
    append_member(members, "small", 5, zlib.crc32(b"hello"), "")
    path = tmp_path / "big.zip"
    with path.open("wb") as file:
        file.write(zip_writer.local_header("big", size, 0))
        file.seek(size, io.SEEK_CUR)
        file.write(zip_writer.local_header("small", 5, zlib.crc32(b"hello")) + b"hello")
        assert file.tell() == zip_writer.data_end(members)
        file.write(zip_writer.central_directory(members))
    with zipfile.ZipFile(path) as zipped:
        assert zipped.read("small") == b"hello"
        assert zipped.getinfo("big").file_size == size
        with zipped.open("big") as member:
            assert member.read(10) == bytes(10)


def test_more_members_than_a_plain_zip_can_count(tmp_path: Path) -> None:
    body, _ = archive([(f"m{i}", b"") for i in range(70_000)])
    with zipfile.ZipFile(io.BytesIO(body)) as zipped:
        assert len(zipped.namelist()) == 70_000
