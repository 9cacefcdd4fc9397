"""Checksums of zip members, against independent implementations."""

from __future__ import annotations

import zlib
from pathlib import Path

import blake3
import pytest

from dscache.folder.checksums import CHUNK_BYTES, Checksums, is_intact
from dscache.protocol.manifests import Member

DATA = bytes(range(256)) * (CHUNK_BYTES // 256) + b"more than one chunk"


def member_of(data: bytes) -> Member:
    digest = blake3.blake3(data).hexdigest()
    return Member(name="m", offset=0, size=len(data), crc32=zlib.crc32(data), digest=digest)


@pytest.mark.parametrize("cut", [0, 1, 1000, len(DATA)])
def test_they_do_not_depend_on_where_the_bytes_are_cut(cut: int) -> None:
    checksums = Checksums()
    for piece in (DATA[:cut], DATA[cut:]):
        checksums.update(memoryview(piece))
    assert checksums.crc32 == zlib.crc32(DATA)
    assert checksums.digest == blake3.blake3(DATA).hexdigest()
    assert checksums.match(member_of(DATA))


@pytest.mark.parametrize("changed", [DATA[:-1], DATA + b"x", DATA[:-1] + b"X"])
def test_a_changed_file_is_not_intact(tmp_path: Path, changed: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(DATA)
    assert is_intact(path, member_of(DATA))
    path.write_bytes(changed)
    assert not is_intact(path, member_of(DATA))
