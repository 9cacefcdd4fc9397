"""One member on its way to the disk: `<name>.part`, checked while it is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import NoSpace
from ..folder.checksums import CHUNK_BYTES, Checksums
from ..folder.contents import PART_SUFFIX
from ..protocol.manifests import Member
from ..units import format_bytes

RESERVED_FROM_BYTES = 1 << 20
BLOCK_BYTES = 4096
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PartFile:
    """The file `<name>.part` in `folder`; `publish` turns it into `<name>`.

    Several threads may write to different places. Sums are rolled while bytes come in order; what
    came otherwise is read back at the end, from the page cache.

    What an earlier process left is hashed again when it is opened and never trusted: a finished
    file goes back to being a `.part` until its sums have been compared once more.
    """

    def __init__(self, folder: Path, member: Member) -> None:
        self.member = member
        self._path = folder / member.name
        self._part = folder / (member.name + PART_SUFFIX)
        if self._path.exists():
            self._path.replace(self._part)
        self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._checksums = Checksums()
        self._summed = 0

    def resume(self) -> list[tuple[int, int]]:
        """The stretches [start, stop) that are missing, in order; reserves space for them.

        Raises NoSpace.
        """
        if os.fstat(self._file).st_size > self.member.size:
            os.ftruncate(self._file, 0)
        missing = gaps(_written(self._file), self.member.size)
        self._sum_up(missing[0][0] if missing else self.member.size)
        if missing and self.member.size >= RESERVED_FROM_BYTES:
            from .reservation import reserve  # what is small needs no ctypes

            with self._telling_no_space():
                reserve(self._file, self.member.size)
        return missing

    def write(self, data: memoryview, at: int) -> None:
        """Write at a place in the member. Raises NoSpace when the disk, the quota or a limit is
        full."""
        if at == self._summed:  # true for one thread at most: the others write elsewhere
            self._checksums.update(data)
            self._summed += len(data)
        with self._telling_no_space():
            while data:
                written = os.pwrite(self._file, data, at)
                at += written
                data = data[written:]

    def check(self) -> bool:
        """Compare size and sums with the member table; when they are wrong the file is emptied."""
        self._sum_up(self.member.size)
        if os.fstat(self._file).st_size == self.member.size and self._checksums.match(self.member):
            return True
        os.ftruncate(self._file, 0)
        self._checksums, self._summed = Checksums(), 0
        return False

    def publish(self) -> None:
        """Give a checked file its own name, once it is on the disk: after a power cut a name must
        not stand for zeros. Raises NoSpace, which some file systems find out only now."""
        with self._telling_no_space():
            os.fdatasync(self._file)
        self.close()
        self._part.replace(self._path)

    def close(self) -> None:
        """Close the file and leave it for a later `resume`; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _sum_up(self, stop: int) -> None:
        """Roll the sums over what is in the file, up to `stop`."""
        if self._summed == stop:
            return
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while read := os.preadv(self._file, [buffer[: stop - self._summed]], self._summed):
            self._checksums.update(buffer[:read])
            self._summed += read

    @contextmanager
    def _telling_no_space(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            free = os.statvfs(self._part.parent)
            available = format_bytes(free.f_bavail * free.f_frsize)
            written = format_bytes(os.fstat(self._file).st_size)
            raise NoSpace(
                f"{self._part}: {error.strerror} after {written} of "
                f"{format_bytes(self.member.size)} ({available} free); free space or raise the "
                "limit (`dscache cache prune` removes old datasets) and get it again: it goes on "
                "from here"
            ) from error


def _written(file: int) -> list[tuple[int, int]]:
    """The stretches of a file that were written, as the file system tells (lseek, SEEK_DATA).

    One that knows no holes says all of it; then the sums are wrong in the end.
    """
    found: list[tuple[int, int]] = []
    size, at = os.fstat(file).st_size, 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                return found
            raise
        at = os.lseek(file, start, os.SEEK_HOLE)
        found.append((start, min(at, size)))
    return found


def gaps(written: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What is missing of `size` bytes, given the stretches that were written. Pure.

    The last block before a hole may have been begun only, the file system tells whole blocks: it
    counts as missing.
    """
    missing: list[tuple[int, int]] = []
    at = 0
    for number, (start, stop) in enumerate(written):
        if start > at:
            missing.append((at, start))
        last = number == len(written) - 1
        at = max(start, stop if last else stop - BLOCK_BYTES)
    if at < size:
        missing.append((at, size))
    return missing
