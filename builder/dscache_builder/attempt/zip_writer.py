"""The bytes of a stored (uncompressed) zip, piece by piece. Pure.

The zip is [local header + data]… + central directory, zip64 where a size or an offset needs it,
fixed time stamps and attributes: equal members always give equal bytes.
Format: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory header),
4.3.14–4.3.16 (zip64 and end records), 4.5.3 (zip64 extra field).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dscache.protocol.manifests import Member

LIMIT_32 = 0xFFFF_FFFF
LIMIT_16 = 0xFFFF
DOS_DATE_1980 = 0x0021  # 1 January 1980, the earliest a zip can say; the time is midnight
UTF8_NAME = 0x0800
VERSION_STORED = 20
VERSION_ZIP64 = 45
MADE_BY_UNIX = 3 << 8
MODE_0644 = 0o100644 << 16

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")


def local_header(name: str, size: int, crc32: int) -> bytes:
    """The header before a member's data; the size is known, so there is no data descriptor."""
    encoded = name.encode()
    zip64 = size >= LIMIT_32
    extra = struct.pack("<2H2Q", 1, 16, size, size) if zip64 else b""
    shown = LIMIT_32 if zip64 else size
    fixed = _LOCAL.pack(
        b"PK\x03\x04",
        VERSION_ZIP64 if zip64 else VERSION_STORED,
        UTF8_NAME,
        0,
        0,
        DOS_DATE_1980,
        crc32,
        shown,
        shown,
        len(encoded),
        len(extra),
    )
    return fixed + encoded + extra


def central_directory(members: Sequence[Member]) -> bytes:
    """Central directory and end records of a zip with exactly these members, in this order.

    `Member.offset` is where the member's data begins; its local header lies before it.
    """
    start = data_end(members)
    directory = b"".join(_central_header(member) for member in members)
    return directory + _end_records(len(members), len(directory), start)


def data_end(members: Sequence[Member]) -> int:
    """Offset of the end of the last member's data, in bytes."""
    return members[-1].offset + members[-1].size if members else 0


def _header_offset(member: Member) -> int:
    return member.offset - len(local_header(member.name, member.size, member.crc32))


def _central_header(member: Member) -> bytes:
    encoded = member.name.encode()
    offset = _header_offset(member)
    big_size, big_offset = member.size >= LIMIT_32, offset >= LIMIT_32
    extra = struct.pack("<2Q", member.size, member.size) if big_size else b""
    extra += struct.pack("<Q", offset) if big_offset else b""
    if extra:
        extra = struct.pack("<2H", 1, len(extra)) + extra
    version = VERSION_ZIP64 if extra else VERSION_STORED
    shown = LIMIT_32 if big_size else member.size
    fixed = _CENTRAL.pack(
        b"PK\x01\x02",
        MADE_BY_UNIX | version,
        version,
        UTF8_NAME,
        0,
        0,
        DOS_DATE_1980,
        member.crc32,
        shown,
        shown,
        len(encoded),
        len(extra),
        0,
        0,
        0,
        MODE_0644,
        LIMIT_32 if big_offset else offset,
    )
    return fixed + encoded + extra


def _end_records(count: int, size: int, start: int) -> bytes:
    records = b""
    if count >= LIMIT_16 or size >= LIMIT_32 or start >= LIMIT_32:
        records += _END64.pack(
            b"PK\x06\x06",
            _END64.size - 12,
            MADE_BY_UNIX | VERSION_ZIP64,
            VERSION_ZIP64,
            0,
            0,
            count,
            count,
            size,
            start,
        )
        records += _END64_LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1)
    shown = min(count, LIMIT_16)
    return records + _END.pack(
        b"PK\x05\x06", 0, 0, shown, shown, min(size, LIMIT_32), min(start, LIMIT_32), 0
    )
