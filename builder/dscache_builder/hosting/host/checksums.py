"""CRC-32 (for the zip) and BLAKE3 of a file, computed while it is written."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3
from isal import isal_zlib

from dscache_sdk.records import count_records

READ_BYTES = 1 << 20


class Checksums:
    """Running checksums: `update` observes a record writer's chunks in order."""

    def __init__(self) -> None:
        self.size = 0
        self.crc32 = 0
        self._blake3 = blake3()

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Add the next chunk."""
        self.size += len(chunk)
        self.crc32 = isal_zlib.crc32(chunk, self.crc32)
        self._blake3.update(chunk)

    @property
    def digest(self) -> str:
        """BLAKE3-256 in hex."""
        return self._blake3.hexdigest()


def checksums_of(path: Path) -> tuple[Checksums, int]:
    """Checksums and number of records of a file. Raises RecordError if it is not a record file."""
    sums = Checksums()
    buffer = bytearray(READ_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            sums.update(view[:size])
    return sums, count_records(path)
