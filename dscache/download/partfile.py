"""Write one member to `<name>.part`, and check it while it is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import NoSpace
from ..folder.checksums import CHUNK_BYTES, Checksums
from ..folder.contents import PART_SUFFIX
from ..folder.directory import Directory
from ..protocol.manifests import Member
from ..units import format_bytes

RESERVED_FROM_BYTES = 1 << 20
BLOCK_BYTES = 4096
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PartFile:
    """The file `<name>.part` in `folder`; `publish` turns it into `<name>`.

    Several threads may write to different places. Checksums are updated while bytes arrive in
    order; the rest is read back at the end, from the page cache.

    Files of an earlier process are hashed again and never trusted: a finished file becomes a
    `.part` again until its checksums have been compared.
    """

    def __init__(self, folder: Directory, member: Member) -> None:
        self.member = member
        self._folder, self._part = folder, member.name + PART_SUFFIX
        with suppress(FileNotFoundError):
            folder.replace(member.name, folder, self._part)
        self._file = folder.open_file(self._part)
        self._checksums = Checksums()
        self._hashed_bytes = 0

    def resume(self) -> list[tuple[int, int]]:
        """Return the missing byte ranges [start, stop), in order, and reserve space for them.

        Raises NoSpace.
        """
        if os.fstat(self._file).st_size > self.member.size:
            os.ftruncate(self._file, 0)
        missing = gaps(_written(self._file), self.member.size)
        self._hash_up_to(missing[0][0] if missing else self.member.size)
        if missing and self.member.size >= RESERVED_FROM_BYTES:
            from .reservation import reserve  # small files need no ctypes

            with self._translate_full_disk():
                reserve(self._file, self.member.size)
        return missing

    def write(self, data: memoryview, at: int) -> None:
        """Write `data` at an offset in the member.

        Raises NoSpace when the disk is full or a quota or file size limit is reached.
        """
        if at == self._hashed_bytes:  # true in one thread at most: the others write elsewhere
            self._checksums.update(data)
            self._hashed_bytes += len(data)
        with self._translate_full_disk():
            while data:
                written = os.pwrite(self._file, data, at)
                at += written
                data = data[written:]

    def check(self) -> bool:
        """Compare size and checksums with the member table; if they differ, empty the file."""
        self._hash_up_to(self.member.size)
        if os.fstat(self._file).st_size == self.member.size and self._checksums.match(self.member):
            return True
        os.ftruncate(self._file, 0)
        self._checksums, self._hashed_bytes = Checksums(), 0
        return False

    def publish(self) -> None:
        """Sync a checked file and give it its final name.

        Synced first, so that after a power cut the name does not belong to zeros. Raises NoSpace,
        which some file systems detect only now.
        """
        with self._translate_full_disk():
            os.fdatasync(self._file)
        self.close()
        self._folder.replace(self._part, self._folder, self.member.name)

    def close(self) -> None:
        """Close the file, to be resumed later; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _hash_up_to(self, stop: int) -> None:
        """Update the checksums from the file, up to `stop`."""
        if self._hashed_bytes == stop:
            return
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while read := os.preadv(
            self._file, [buffer[: stop - self._hashed_bytes]], self._hashed_bytes
        ):
            self._checksums.update(buffer[:read])
            self._hashed_bytes += read

    @contextmanager
    def _translate_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            free = os.statvfs(self._folder.handle)
            available = format_bytes(free.f_bavail * free.f_frsize)
            written = format_bytes(os.fstat(self._file).st_size)
            raise NoSpace(
                f"{self._folder.path / self._part}: {error.strerror} after {written} of "
                f"{format_bytes(self.member.size)} ({available} free); free some space "
                "(`dscache cache prune` removes old datasets) or raise the limit, then get the "
                "dataset again: the download resumes here"
            ) from error


def _written(file: int) -> list[tuple[int, int]]:
    """Return the byte ranges of a file that were written (lseek with SEEK_DATA).

    A file system without holes reports the whole file; then the checksums differ in the end.
    """
    written: list[tuple[int, int]] = []
    size, at = os.fstat(file).st_size, 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole up to the end
                return written
            raise
        at = os.lseek(file, start, os.SEEK_HOLE)
        written.append((start, min(at, size)))
    return written


def gaps(written: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return the byte ranges missing of `size` bytes, given those that were written. Pure.

    The file system reports whole blocks, and the last block before a hole may be incomplete: it
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
