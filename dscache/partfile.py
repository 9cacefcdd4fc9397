"""One member on its way to the disk: `<name>.part`, checked while it is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import blake3
from isal import isal_zlib

from .errors import NoSpace
from .holding import PART_SUFFIX
from .manifests import Member
from .units import format_bytes

CHUNK_BYTES = 256 << 10  # small enough to stay in the processor's cache while it is hashed
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Sums:
    """CRC-32 of the zip format and BLAKE3-256, rolled over the bytes in order."""

    def __init__(self) -> None:
        self._crc32 = 0
        self._blake3 = blake3.blake3()

    def update(self, data: memoryview) -> None:
        """Add bytes."""
        self._crc32 = isal_zlib.crc32(data, self._crc32)
        self._blake3.update(data)

    def match(self, member: Member) -> bool:
        """Whether these are the sums in the member table."""
        return self._crc32 == member.crc32 and self._blake3.hexdigest() == member.digest


class PartFile:
    """The file `<name>.part` in `folder`; `publish` turns it into `<name>`.

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
        self._sums = Sums()
        self.size = 0

    def resume(self, buffer: memoryview) -> int:
        """Hash what is there already, return its size in bytes."""
        if os.fstat(self._file).st_size > self.member.size:
            os.ftruncate(self._file, 0)
        while read := os.preadv(self._file, [buffer], self.size):
            self._sums.update(buffer[:read])
            self.size += read
        return self.size

    def write(self, data: memoryview) -> None:
        """Append. Raises NoSpace when the disk, the quota or a limit is full."""
        self._sums.update(data)
        try:
            while data:
                written = os.pwrite(self._file, data, self.size)
                self.size += written
                data = data[written:]
        except OSError as error:
            if error.errno in _FULL:
                raise self._no_space(error) from error
            raise

    def check(self) -> bool:
        """Compare size and sums with the member table; when they are wrong the file is emptied."""
        if self.size == self.member.size and self._sums.match(self.member):
            return True
        os.ftruncate(self._file, 0)
        self.size, self._sums = 0, Sums()
        return False

    def publish(self) -> None:
        """Give a checked file its own name, once it is on the disk: after a power cut a name must
        not stand for zeros. Raises NoSpace, which some file systems find out only now."""
        try:
            os.fdatasync(self._file)
        except OSError as error:
            if error.errno in _FULL:
                raise self._no_space(error) from error
            raise
        self.close()
        self._part.replace(self._path)

    def close(self) -> None:
        """Close the file and leave it for a later `resume`; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _no_space(self, error: OSError) -> NoSpace:
        free = os.statvfs(self._part.parent)
        available = format_bytes(free.f_bavail * free.f_frsize)
        return NoSpace(
            f"{self._part}: {error.strerror} after {format_bytes(self.size)} of "
            f"{format_bytes(self.member.size)} ({available} free); free space or raise the limit "
            "(`dscache cache prune` removes old datasets) and get it again: it goes on from here"
        )


def intact(path: Path, member: Member) -> bool:
    """Whether the file has the member's size and sums. Reads it once, 256 KiB at a time."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    sums = Sums()
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != member.size:
            return False
        while read := file.readinto(buffer):
            sums.update(buffer[:read])
    return sums.match(member)
