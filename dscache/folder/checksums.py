"""Checksums of zip members: the CRC-32 of the zip format and BLAKE3-256."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import blake3
from isal import isal_zlib

if TYPE_CHECKING:
    from ..protocol.manifests import Member

CHUNK_BYTES = 256 << 10  # small enough to stay in the processor's cache while it is hashed


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
