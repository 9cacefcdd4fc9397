"""Check the framing of a TFRecord file that is read in chunks of any size. Pure.

Framing (TensorFlow's record_writer.cc): length as uint64, masked CRC-32C of those 8 bytes, the
data, masked CRC-32C of the data; all little-endian.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from dscache_sdk.records import FRAME_BYTES, mask_crc, masked_crc

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_HEADER_BYTES = 12
MAX_PROBLEMS = 5


class RecordCheck:
    """Checks one file, given its chunks in order; memory does not grow with the record size.

    Attributes:
        records: number of complete records so far.
        problems: the first 5 problems.
        more: number of further problems.
    """

    def __init__(self, size: int) -> None:
        self.records = 0
        self.problems: list[str] = []
        self.more = 0
        self._size = size
        self._record_at = 0  # offset of the current record
        self._pending = b""  # of an incomplete header or data checksum
        self._left: int | None = None  # missing bytes of the data; None: within the header
        self._length = 0
        self._crc = 0
        self._lost = False  # after a framing error, the rest cannot be checked

    def update(self, chunk: memoryview) -> None:
        """Check the next chunk."""
        while chunk and not self._lost:
            if self._left is None:
                chunk = self._update_header(chunk)
            elif self._left:
                data = chunk[: self._left]
                self._crc = crc32c(data, self._crc)
                self._left -= len(data)
                chunk = chunk[len(data) :]
            else:
                chunk = self._update_checksum(chunk)

    def finish(self) -> None:
        """Check that the file does not end within a record."""
        if not self._lost and (self._left is not None or self._pending):
            self._add_problem("the file ends within it")

    def _update_header(self, chunk: memoryview) -> memoryview:
        missing = _HEADER_BYTES - len(self._pending)
        self._pending += chunk[:missing]
        if len(self._pending) < _HEADER_BYTES:
            return chunk[len(chunk) :]
        header, self._pending = self._pending, b""
        length, crc = _HEADER.unpack(header)
        if masked_crc(header[:8]) != crc:
            self._lost = True
            self._add_problem("the checksum of its length differs; the rest cannot be checked")
        elif self._record_at + length + FRAME_BYTES > self._size:
            self._lost = True
            excess = self._record_at + length + FRAME_BYTES - self._size
            self._add_problem(f"the file ends {excess} bytes before it does")
        else:
            self._left, self._length, self._crc = length, length, 0
        return chunk[missing:] if not self._lost else chunk[len(chunk) :]

    def _update_checksum(self, chunk: memoryview) -> memoryview:
        missing = _CRC.size - len(self._pending)
        self._pending += chunk[:missing]
        if len(self._pending) == _CRC.size:
            (crc,) = _CRC.unpack(self._pending)
            if mask_crc(self._crc) != crc:
                self._add_problem("the checksum of its data differs")
            self.records += 1
            self._record_at += self._length + FRAME_BYTES
            self._pending, self._left = b"", None
        return chunk[missing:]

    def _add_problem(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"record {self.records} at byte {self._record_at}: {problem}")
        else:
            self.more += 1
