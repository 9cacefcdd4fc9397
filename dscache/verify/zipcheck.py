"""Check the structure of a stored zip against the member table of its ready marker. Pure.

This reader shares no code with the builder's writer, so that a mistake in one is not hidden by the
same mistake in the other. Format: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12
(central directory header), 4.3.14–4.3.16 (zip64 and end records), 4.5.3 (zip64 extra field).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..protocol.manifests import Member

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_LIMIT_32 = 0xFFFF_FFFF
_LIMIT_16 = 0xFFFF
_STORED = 0
_ZIP64_EXTRA = 1
_ENCRYPTED_OR_DESCRIPTOR = 0x0009  # flag bits 0 and 3; bit 3 would put the sizes after the data

MAX_HEADER_BYTES = _LOCAL.size + 2 * 0xFFFF  # a local header with its name and extra field
_LARGEST_ENTRY_EXTRA_BYTES = 28  # zip64 extra field of a central header
_LARGEST_END_BYTES = _END64.size + _END64_LOCATOR.size + _END.size


class BadZip(Exception):
    """The zip's structure is invalid; the message says how."""


@dataclass(frozen=True)
class HeaderFields:
    """The fields of a member's header. `header_offset` is 0 for local headers."""

    name: str
    crc32: int
    size: int
    header_offset: int = 0


@dataclass(frozen=True)
class _End:
    count: int
    size: int
    start: int
    records_bytes: int


def largest_directory(members: Sequence[Member]) -> int:
    """Return the maximum size of the central directory and end records of these members."""
    entry = _CENTRAL.size + _LARGEST_ENTRY_EXTRA_BYTES
    return sum(entry + len(member.name.encode()) for member in members) + _LARGEST_END_BYTES


def local_problems(header: bytes, member: Member) -> Iterator[str]:
    """Yield the problems of the bytes between the previous member's data and this one's."""
    try:
        fields = _parse_local(header)
    except BadZip as problem:
        yield f"local header: {problem}"
        return
    yield from (f"local header: {text}" for text in _field_problems(fields, member))


def directory_problems(tail: bytes, start: int, members: Sequence[Member]) -> Iterator[str]:
    """Yield the problems of the end of the zip.

    Args:
        tail: all bytes after the last member's data.
        start: offset of `tail` in the zip, in bytes.
        members: the member table, in zip order.
    """
    try:
        entries = _parse_directory(tail, start)
    except BadZip as problem:
        yield f"central directory: {problem}"
        return
    expected = {member.name: member for member in members}
    if [entry.name for entry in entries] != list(expected):
        yield from _name_problems([entry.name for entry in entries], list(expected))
    offsets = _header_offsets(members)
    for entry in entries:
        member = expected.get(entry.name)
        if member is None:
            continue
        for text in _field_problems(entry, member):
            yield f"central directory: {entry.name}: {text}"
        if entry.header_offset != offsets[entry.name]:
            yield (
                f"central directory: {entry.name}: local header at byte {entry.header_offset} "
                f"instead of {offsets[entry.name]}"
            )


def _header_offsets(members: Sequence[Member]) -> dict[str, int]:
    """Return the offset of each member's local header: the end of the previous member's data."""
    end, offsets = 0, {}
    for member in members:
        offsets[member.name] = end
        end = member.offset + member.size
    return offsets


def _name_problems(actual: Sequence[str], expected: Sequence[str]) -> Iterator[str]:
    for name in sorted(set(expected) - set(actual)):
        yield f"central directory: {name}: missing, but in the ready marker"
    for name in sorted(set(actual) - set(expected)):
        yield f"central directory: {name}: not in the ready marker"
    if len(actual) != len(set(actual)):
        yield "central directory: a name appears twice"
    elif set(actual) == set(expected):
        yield "central directory: the order of the members differs from the ready marker"


def _field_problems(fields: HeaderFields, member: Member) -> Iterator[str]:
    if fields.name != member.name:
        yield f"belongs to {fields.name!r}"
    if fields.size != member.size:
        yield f"size {fields.size} instead of {member.size} bytes"
    if fields.crc32 != member.crc32:
        yield f"CRC-32 {fields.crc32:08x} instead of {member.crc32:08x}"


def _parse_local(header: bytes) -> HeaderFields:
    if len(header) < _LOCAL.size:
        raise BadZip(f"{len(header)} bytes are too few")
    magic, _, flags, method, _, _, crc32, packed, size, name_bytes, extra_bytes = (
        _LOCAL.unpack_from(header)
    )
    if magic != b"PK\x03\x04":
        raise BadZip("not found at the expected offset")
    if _LOCAL.size + name_bytes + extra_bytes != len(header):
        raise BadZip(
            f"{_LOCAL.size + name_bytes + extra_bytes} bytes long, but the data begins after "
            f"{len(header)}"
        )
    _check_stored(flags, method)
    name = header[_LOCAL.size : _LOCAL.size + name_bytes]
    size, packed = _wide(header[_LOCAL.size + name_bytes :], [size, packed])
    _check_sizes(size, packed)
    return HeaderFields(_text(name), crc32, size)


def _parse_directory(tail: bytes, start: int) -> list[HeaderFields]:
    end = _parse_end(tail, start)
    if end.start != start or end.size + end.records_bytes != len(tail):
        raise BadZip(
            f"the end record says {end.size} bytes at byte {end.start}, but there are "
            f"{len(tail) - end.records_bytes} at byte {start}"
        )
    entries, at = [], 0
    while at < end.size:
        entry, length = _parse_central(tail, at, end.size)
        entries.append(entry)
        at += length
    if len(entries) != end.count:
        raise BadZip(f"{len(entries)} entries, but the end record says {end.count}")
    return entries


def _parse_end(tail: bytes, start: int) -> _End:
    at = len(tail) - _END.size
    if at < 0 or tail[at : at + 4] != b"PK\x05\x06":
        raise BadZip("no end record at the end of the zip")
    _, _, _, _, count, size, offset, comment_bytes = _END.unpack_from(tail, at)
    if comment_bytes:
        raise BadZip("the end record has a comment")
    if count != _LIMIT_16 and _LIMIT_32 not in (size, offset):
        return _End(count, size, offset, _END.size)
    return _parse_end64(tail, at - _END64_LOCATOR.size, start)


def _parse_end64(tail: bytes, locator_at: int, start: int) -> _End:
    at = locator_at - _END64.size
    if at < 0 or tail[locator_at : locator_at + 4] != b"PK\x06\x07":
        raise BadZip("no zip64 locator before the end record, which requires one")
    _, _, record_offset, _ = _END64_LOCATOR.unpack_from(tail, locator_at)
    if record_offset != start + at or tail[at : at + 4] != b"PK\x06\x06":
        raise BadZip(f"no zip64 end record at byte {record_offset}, to which the locator points")
    _, _, _, _, _, _, _, count, size, offset = _END64.unpack_from(tail, at)
    return _End(count, size, offset, len(tail) - at)


def _parse_central(tail: bytes, at: int, stop: int) -> tuple[HeaderFields, int]:
    """Parse the entry at `at` of a directory that ends at `stop`; also return its size in bytes."""
    if stop - at < _CENTRAL.size or tail[at : at + 4] != b"PK\x01\x02":
        raise BadZip("an entry does not start where the previous one ends")
    fields = _CENTRAL.unpack_from(tail, at)
    flags, method, crc32, packed, size = fields[3], fields[4], *fields[7:10]
    name_bytes, extra_bytes, comment_bytes, offset = *fields[10:13], fields[16]
    name_at = at + _CENTRAL.size
    name_end = name_at + name_bytes
    length = _CENTRAL.size + name_bytes + extra_bytes + comment_bytes
    if at + length > stop:
        raise BadZip("it ends within an entry")
    _check_stored(flags, method)
    extra = tail[name_end : name_end + extra_bytes]
    size, packed, offset = _wide(extra, [size, packed, offset])
    _check_sizes(size, packed)
    return HeaderFields(_text(tail[name_at:name_end]), crc32, size, offset), length


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """Replace the values that refer to the zip64 extra field by its numbers, in order."""
    if _LIMIT_32 not in values:
        return values
    numbers = iter(_zip64_numbers(extra))
    try:
        return [next(numbers) if value == _LIMIT_32 else value for value in values]
    except (StopIteration, RuntimeError):
        raise BadZip("the zip64 extra field lacks a size or an offset") from None


def _zip64_numbers(extra: bytes) -> tuple[int, ...]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_EXTRA:
            body = extra[at + 4 : at + 4 + length]
            return struct.unpack_from(f"<{len(body) // 8}Q", body)
        at += 4 + length
    return ()


def _check_stored(flags: int, method: int) -> None:
    if method != _STORED or flags & _ENCRYPTED_OR_DESCRIPTOR:
        raise BadZip(
            f"compression method {method}, flags {flags:#06x}; members must be stored uncompressed"
        )


def _check_sizes(size: int, packed: int) -> None:
    if size != packed:
        raise BadZip(f"sizes {size} and {packed} differ, although the member is uncompressed")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
