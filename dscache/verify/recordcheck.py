"""Check the framing of a TFRecord file that arrives in pieces of any size. Pure.

Framing (TensorFlow's record_writer.cc): length as uint64, masked CRC-32C of those 8 bytes, the
data, masked CRC-32C of the data; all little-endian.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from dscache_sdk.records import FRAME_BYTES, mask_crc, masked_crc

_HEAD = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_HEAD_BYTES = 12
MAX_PROBLEMS = 5


class RecordCheck:
    """Takes the bytes of one file in order; memory does not grow with the size of a record.

    Attributes:
        records: whole records so far.
        problems: what is wrong, the first few; `more` counts the others.
    """

    def __init__(self, size: int) -> None:
        self.records = 0
        self.problems: list[str] = []
        self.more = 0
        self._size = size
        self._at = 0  # where the record begins
        self._held = b""  # of a head or a trailing checksum that is not complete yet
        self._left: int | None = None  # bytes of data still to come; None: within the head
        self._length = 0
        self._crc = 0
        self._lost = False  # the framing is: nothing after this can be told

    def update(self, chunk: memoryview) -> None:
        """Add the next bytes."""
        while chunk and not self._lost:
            if self._left is None:
                chunk = self._head(chunk)
            elif self._left:
                taken = chunk[: self._left]
                self._crc = crc32c(taken, self._crc)
                self._left -= len(taken)
                chunk = chunk[len(taken) :]
            else:
                chunk = self._tail(chunk)

    def finish(self) -> None:
        """The file is over."""
        if not self._lost and (self._left is not None or self._held):
            self._problem("the file ends within it")

    def _head(self, chunk: memoryview) -> memoryview:
        missing = _HEAD_BYTES - len(self._held)
        self._held += chunk[:missing]
        if len(self._held) < _HEAD_BYTES:
            return chunk[len(chunk) :]
        head, self._held = self._held, b""
        length, crc = _HEAD.unpack(head)
        if masked_crc(head[:8]) != crc:
            self._lost = True
            self._problem("the checksum of its length differs; what follows cannot be read")
        elif self._at + length + FRAME_BYTES > self._size:
            self._lost = True
            missing = self._at + length + FRAME_BYTES - self._size
            self._problem(f"the file ends {missing} bytes before it does")
        else:
            self._left, self._length, self._crc = length, length, 0
        return chunk[missing:] if not self._lost else chunk[len(chunk) :]

    def _tail(self, chunk: memoryview) -> memoryview:
        missing = _CRC.size - len(self._held)
        self._held += chunk[:missing]
        if len(self._held) == _CRC.size:
            (crc,) = _CRC.unpack(self._held)
            if mask_crc(self._crc) != crc:
                self._problem("the checksum of its data differs")
            self.records += 1
            self._at += self._length + FRAME_BYTES
            self._held, self._left = b"", None
        return chunk[missing:]

    def _problem(self, what: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"record {self.records} at byte {self._at}: {what}")
        else:
            self.more += 1
