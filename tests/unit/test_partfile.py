"""A member on its way to the disk: written in any order, resumed, compared."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.download import partfile, reservation
from dscache.download.partfile import BLOCK_BYTES, PartFile, gaps
from dscache.download.segments import Segment, SingleMemberRun
from dscache.errors import NoSpace
from dscache.folder.directory import Directory
from dscache.protocol.manifests import Member

KIB = 1 << 10
MIB = 1 << 20
CONTENT = np.random.default_rng(0).bytes(3 * MIB + 77)
OFFSET = 1000
MEMBER = Member(
    name="shard",
    offset=OFFSET,
    size=len(CONTENT),
    crc32=zlib.crc32(CONTENT),
    digest=blake3.blake3(CONTENT).hexdigest(),
)


def put(part: PartFile, start: int, stop: int) -> None:
    """Write that part of the content in chunks."""
    for at in range(start, stop, 100 * KIB):
        part.write(memoryview(CONTENT)[at : min(at + 100 * KIB, stop)], at)


class TestOrder:
    @pytest.mark.parametrize(
        "stretches",
        [
            [(0, len(CONTENT))],
            [(MIB, len(CONTENT)), (0, MIB)],
            [(0, MIB), (2 * MIB, len(CONTENT)), (MIB, 2 * MIB)],
            [(0, MIB + 5), (MIB, len(CONTENT))],  # a little of it twice
        ],
    )
    def test_any_is_right(self, tmp_path: Path, stretches: list[tuple[int, int]]) -> None:
        part = PartFile(Directory(tmp_path), MEMBER)
        assert part.resume() == [(0, len(CONTENT))]
        for start, stop in stretches:
            put(part, start, stop)
        assert part.check()
        part.publish()
        assert (tmp_path / "shard").read_bytes() == CONTENT
        assert [path.name for path in tmp_path.iterdir()] == ["shard"]

    def test_a_wrong_byte_is_found_wherever_it_is(self, tmp_path: Path) -> None:
        for at in (0, MIB + 5, len(CONTENT) - 1):
            part = PartFile(Directory(tmp_path), MEMBER)
            put(part, MIB, len(CONTENT))
            put(part, 0, MIB)
            part.write(memoryview(bytes([CONTENT[at] ^ 1])), at)
            part.close()
            part = PartFile(Directory(tmp_path), MEMBER)
            part.resume()
            assert not part.check()
            assert (tmp_path / "shard.part").stat().st_size == 0
            part.close()

    def test_what_is_missing_is_not_right(self, tmp_path: Path) -> None:
        part = PartFile(Directory(tmp_path), MEMBER)
        put(part, 0, len(CONTENT) - 1)
        assert not part.check()
        part.close()


class TestResume:
    def left_behind(self, folder: Path, *stretches: tuple[int, int]) -> PartFile:
        part = PartFile(Directory(folder), MEMBER)
        part.resume()
        for start, stop in stretches:
            put(part, start, stop)
        part.close()
        return PartFile(Directory(folder), MEMBER)

    def test_the_end_is_missing(self, tmp_path: Path) -> None:
        part = self.left_behind(tmp_path, (0, MIB + 5))
        assert part.resume() == [(MIB + 5, len(CONTENT))]
        put(part, MIB + 5, len(CONTENT))
        assert part.check()
        part.close()

    def test_the_middle_is_missing(self, tmp_path: Path) -> None:
        part = self.left_behind(tmp_path, (0, MIB + 5), (2 * MIB, len(CONTENT)))
        ((start, stop),) = part.resume()
        assert stop == 2 * MIB
        assert MIB - BLOCK_BYTES < start <= MIB + 5  # at most the block that was begun, again
        put(part, start, stop)
        assert part.check()
        part.close()

    def test_the_beginning_is_missing(self, tmp_path: Path) -> None:
        part = self.left_behind(tmp_path, (MIB, 2 * MIB))
        assert part.resume() == [(0, MIB), (2 * MIB, len(CONTENT))]
        part.close()

    def test_a_file_system_that_knows_no_holes_costs_a_second_fetch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        part = self.left_behind(tmp_path, (0, 5), (2 * MIB, len(CONTENT)))
        monkeypatch.setattr(partfile, "_written", lambda file: [(0, os.fstat(file).st_size)])
        assert part.resume() == []
        assert not part.check()
        assert part.resume() == [(0, len(CONTENT))]
        put(part, 0, len(CONTENT))
        assert part.check()
        part.close()

    def test_a_longer_file_is_none_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "shard.part").write_bytes(CONTENT + b"?")
        part = PartFile(Directory(tmp_path), MEMBER)
        assert part.resume() == [(0, len(CONTENT))]
        part.close()

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=8))
    def test_gaps_and_what_is_surely_there_are_everything(
        self, pieces: list[tuple[int, int]]
    ) -> None:
        written: list[tuple[int, int]] = []
        at = 0
        for skipped, length in pieces:
            start = at + (skipped + bool(written)) * BLOCK_BYTES
            at = start + length * BLOCK_BYTES
            written.append((start, at))
        size = at + 100
        missing = gaps(written, size)
        assert all(start < stop for start, stop in missing)
        assert missing == sorted(missing) and missing[-1][1] == size
        lost = sum(stop - start for start, stop in missing)
        there = sum(stop - start for start, stop in written)
        assert lost + there == size + BLOCK_BYTES * max(len(written) - 1, 0)


class TestSpace:
    def test_it_is_reserved_and_the_size_is_that_of_what_came(self, tmp_path: Path) -> None:
        part = PartFile(Directory(tmp_path), MEMBER)
        part.resume()
        put(part, 0, 4096)
        found = (tmp_path / "shard.part").stat()
        assert found.st_size == 4096
        if _can_reserve(tmp_path):
            assert found.st_blocks * 512 >= len(CONTENT)
        part.close()

    def test_a_full_disk_is_found_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(file: int, size: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(reservation, "reserve", full)
        part = PartFile(Directory(tmp_path), MEMBER)
        with pytest.raises(NoSpace, match=r"No space left.*0 B of 3\.0 MiB.*resumes here"):
            part.resume()
        part.close()

    def test_more_than_there_is(self) -> None:
        with tempfile.TemporaryFile(dir="/dev/shm") as file:  # a tmpfs refuses it at once
            found = os.statvfs(file.fileno())
            with pytest.raises(OSError) as caught:
                reservation.reserve(file.fileno(), (found.f_blocks + 1) * found.f_frsize)
        assert caught.value.errno == errno.ENOSPC


def _can_reserve(folder: Path) -> bool:
    """Whether the file system has reservations, found without the code under test."""
    probe = folder / "probe"
    probe.touch()
    subprocess.run(["fallocate", "--keep-size", "--length", str(MIB), probe], check=False)
    reserved = probe.stat().st_blocks > 0
    probe.unlink()
    return reserved


class TestCut:
    @given(st.data())
    def test_both_are_the_whole(self, data: Any) -> None:
        run = SingleMemberRun(Directory(Path()), lambda part: None, MEMBER)
        position = data.draw(st.integers(OFFSET, OFFSET + 2 * MIB))
        stop = data.draw(st.integers(position + 4 * BLOCK_BYTES, OFFSET + len(CONTENT)))
        first = Segment(run, position, stop)
        second = run.cut(first, first.left // 2)
        assert (first.position, second.stop) == (position, stop)
        assert first.stop == second.position
        assert (second.position - OFFSET) % BLOCK_BYTES == 0
        assert abs(first.left - second.left) <= 2 * BLOCK_BYTES
