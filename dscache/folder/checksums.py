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


class Checksums:
    """CRC-32 and BLAKE3-256 of the bytes added so far."""

    def __init__(self) -> None:
        self.crc32 = 0
        self._blake3 = blake3.blake3()

    def update(self, data: memoryview) -> None:
        """Add the next bytes."""
        self.crc32 = isal_zlib.crc32(data, self.crc32)
        self._blake3.update(data)

    @property
    def digest(self) -> str:
        """BLAKE3-256 in hexadecimal."""
        return self._blake3.hexdigest()

    def match(self, member: Member) -> bool:
        """Whether these are the checksums in the member table."""
        return self.crc32 == member.crc32 and self.digest == member.digest


def is_intact(path: Path, member: Member) -> bool:
    """Whether the file has the member's size and checksums.

    Reads it once, 256 KiB at a time. Raises OSError.
    """
    buffer = memoryview(bytearray(CHUNK_BYTES))
    checksums = Checksums()
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != member.size:
            return False
        while read := file.readinto(buffer):
            checksums.update(buffer[:read])
    return checksums.match(member)
