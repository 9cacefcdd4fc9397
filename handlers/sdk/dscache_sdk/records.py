"""TFRecord files: a fast writer, and a reader that verifies checksums.

Framing (TensorFlow's record_writer.cc): length as uint64, masked CRC-32C of those 8 bytes, the
data, masked CRC-32C of the data; all little-endian. Mask: rotate right by 15 bits and add
0xa282ead8. This does not use TensorFlow, which takes seconds to import and whose writer is slower.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from crc32c import crc32c

from dscache_sdk.errors import RecordError

Observer = Callable[[bytes | memoryview], object]

FRAME_BYTES = 16  # 8 length + 4 its CRC + 4 CRC of the data
_HEAD = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_BUFFER_BYTES = 1 << 18
_DIRECT_BYTES = 1 << 15  # larger records are written without a copy
_CACHED_HEADS = 4096
_MAX_CHUNKS = 64  # per system call; Linux allows 1,024


def masked_crc(data: bytes | memoryview) -> int:
    """Masked CRC-32C, as in TFRecord files."""
    return mask_crc(crc32c(data))


def mask_crc(crc: int) -> int:
    """Mask a CRC-32C: rotate it right by 15 bits and add a constant, modulo 2**32."""
    return ((crc >> 15 | crc << 17 & 0xFFFF_FFFF) + 0xA282EAD8) & 0xFFFF_FFFF


def _head(length: int) -> bytes:
    packed = _LENGTH.pack(length)
    return packed + _CRC.pack(masked_crc(packed))


class RecordWriter:
    """Write records into a new file; use as a context manager.

    Each chunk written is passed to every observer, in file order, so that checksums can be computed
    meanwhile. Small records are collected in a buffer of 256 KiB, large ones are written without a
    copy. If the block raises an exception, the incomplete file is removed.

    Args:
        path: the file; an existing one is replaced.
        observers: called with each chunk after it was written.

    Attributes:
        records: number of records so far.
        bytes: bytes written so far, including framing.
    """

    def __init__(self, path: str | os.PathLike[str], observers: Sequence[Observer] = ()) -> None:
        self.path = Path(path)
        self.records = 0
        self.bytes = 0
        self._observers = tuple(observers)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._heads: dict[int, bytes] = {}
        self._file: BinaryIO | None = self.path.open("wb", buffering=0)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    def write(self, record: bytes, *more: bytes) -> None:
        """Append one record, given in one or more pieces.

        Raises:
            OSError: the file cannot be written.
        """
        if more:
            self._write_pieces((record, *more))
            return
        length = len(record)
        head = self._heads.get(length) or self._new_head(length)
        self._pending += (head, record, _CRC.pack(mask_crc(crc32c(record))))
        self.records += 1
        self._pending_bytes += length + 16
        if length > _DIRECT_BYTES:
            self._flush(direct=True)
        elif self._pending_bytes > _BUFFER_BYTES:
            self._flush(direct=False)

    def _write_pieces(self, pieces: tuple[bytes, ...]) -> None:
        length = sum(map(len, pieces))
        if length <= _DIRECT_BYTES:
            self.write(b"".join(pieces))
            return
        crc = 0
        for piece in pieces:
            crc = crc32c(piece, crc)
        self._pending += (self._new_head(length), *pieces, _CRC.pack(mask_crc(crc)))
        self.records += 1
        self._flush(direct=True)

    def close(self) -> None:
        """Write the buffered records and close the file; does nothing if it is closed."""
        if self._file is None:
            return
        try:
            self._flush(direct=False)
        except BaseException:
            self._abandon()
            raise
        self._file.close()
        self._file = None

    def _new_head(self, length: int) -> bytes:
        if len(self._heads) >= _CACHED_HEADS:
            self._heads.clear()
        head = self._heads[length] = _head(length)
        return head

    def _flush(self, *, direct: bool) -> None:
        if not self._pending:
            return
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        chunks, self._pending = self._pending, []
        self._pending_bytes = 0
        if not direct or len(chunks) > _MAX_CHUNKS:
            chunks = [b"".join(chunks)]
        _write_all(self._file.fileno(), chunks)
        for chunk in chunks:
            self.bytes += len(chunk)
            for observe in self._observers:
                observe(chunk)

    def _abandon(self) -> None:
        if self._file is not None:
            regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
            self._file.close()
            self._file = None
            if regular:
                self.path.unlink(missing_ok=True)


def _write_all(fd: int, chunks: list[bytes]) -> None:
    total = sum(map(len, chunks))
    written = os.writev(fd, chunks)
    if written < total:
        # After a signal, with a pipe, or beyond 2 GiB per call: rare, so the copy does not matter.
        unwritten = memoryview(b"".join(chunks))[written:]
        while unwritten:
            unwritten = unwritten[os.write(fd, unwritten) :]


def read_records(path: str | os.PathLike[str], verify: bool = True) -> Iterator[bytes]:
    """Yield the records of a file in order.

    Args:
        path: the file.
        verify: check the CRC of lengths and data.

    Raises:
        RecordError: a checksum differs, or the file ends within a record.
    """
    name = os.fspath(path)
    with Path(name).open("rb", buffering=1 << 20) as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            length = _read_head(file, name, at, size, verify)
            data = file.read(length)
            (crc,) = _CRC.unpack(file.read(4))
            if verify and masked_crc(data) != crc:
                raise RecordError(name, at, "the checksum of the data differs: the file is damaged")
            yield data
            at += length + FRAME_BYTES


def count_records(path: str | os.PathLike[str]) -> int:
    """Count the records of a file from their lengths alone; the data is not checked.

    Raises:
        RecordError: a length's checksum differs or the file ends within a record.
    """
    name = os.fspath(path)
    count = 0
    with Path(name).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            file.seek(at)
            at += _read_head(file, name, at, size, verify=True) + FRAME_BYTES
            count += 1
    return count


def _read_head(file: BinaryIO, name: str, at: int, size: int, verify: bool) -> int:
    head = file.read(12)
    if len(head) < 12:
        raise RecordError(name, at, "the file ends within a record's length")
    length, crc = _HEAD.unpack(head)
    if verify and masked_crc(head[:8]) != crc:
        raise RecordError(name, at, "the checksum of the length differs: no record starts here")
    if at + length + FRAME_BYTES > size:
        missing = at + length + FRAME_BYTES - size
        raise RecordError(name, at, f"the file ends {missing} bytes before this record does")
    return int(length)
