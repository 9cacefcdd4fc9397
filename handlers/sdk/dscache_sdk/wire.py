"""The parts of protobuf's wire format that tf.train.Example needs.

Source: https://protobuf.dev/programming-guides/encoding/ and TensorFlow's feature.proto:
``Example{1: Features{1: map<string, Feature>}}``, ``Feature{1: BytesList | 2: FloatList |
3: Int64List}``, each list ``{1: repeated value}``, numbers packed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BYTES_TAG = b"\x0a"
FLOAT_TAG = b"\x12"
INT64_TAG = b"\x1a"

_FIELD_1 = b"\x0a"  # field 1, length-delimited
_FIELD_2 = b"\x12"  # field 2, length-delimited
_MAX_VARINT_BYTES = 10
_MASK_64 = 2**64 - 1


def varint(value: int) -> bytes:
    """Encode one unsigned integer below 2**64."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(data: bytes) -> bytes:
    """Field 1 with these bytes: one element of a BytesList, or the Features of an Example."""
    return _FIELD_1 + varint(len(data)) + data


def map_key(name: str) -> bytes:
    """The key field of one entry of the feature map."""
    return delimited(name.encode("utf-8"))


def entry_prefix(key: bytes, tag: bytes, inner: bytes, payload_bytes: int) -> bytes:
    """The bytes of a map entry before its payload.

    Args:
        key: from `map_key`.
        tag: BYTES_TAG, FLOAT_TAG or INT64_TAG.
        inner: the bytes before the payload inside the list message.
        payload_bytes: length of the payload that the caller appends.
    """
    list_bytes = len(inner) + payload_bytes
    feature_head = tag + varint(list_bytes)
    feature_bytes = len(feature_head) + list_bytes
    value_head = _FIELD_2 + varint(feature_bytes)
    entry_bytes = len(key) + len(value_head) + feature_bytes
    return _FIELD_1 + varint(entry_bytes) + key + value_head + feature_head + inner


def single_prefix(key: bytes, tag: bytes, payload_bytes: int) -> bytes:
    """`entry_prefix` for one bytes value, or for packed numbers of `payload_bytes` bytes.

    In protobuf, an empty packed list has no field, but an empty bytes value has one.
    """
    if payload_bytes == 0 and tag != BYTES_TAG:
        return entry_prefix(key, tag, b"", 0)
    return entry_prefix(key, tag, _FIELD_1 + varint(payload_bytes), payload_bytes)


def pack_int64(values: npt.NDArray[np.int64]) -> bytes:
    """Pack signed integers as varints, without a Python loop over the values."""
    unsigned = np.ascontiguousarray(values, dtype="<i8").view(np.uint64).ravel()
    if unsigned.size == 0:
        return b""
    if int(unsigned.max()) < 0x80:
        return unsigned.astype(np.uint8).tobytes()
    if unsigned.size <= 8:
        return b"".join(varint(value) for value in unsigned.tolist())
    return _pack_many(unsigned)


def _pack_many(values: npt.NDArray[np.uint64]) -> bytes:
    shifts = np.arange(1, _MAX_VARINT_BYTES, dtype=np.uint64) * np.uint64(7)
    lengths = np.ones(values.size, dtype=np.int64)
    for shift in shifts:
        lengths += (values >> shift) > 0
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]), dtype=np.uint8)
    starts = ends - lengths
    for place in range(int(lengths.max())):
        longer = lengths > place
        digit = (values[longer] >> np.uint64(7 * place)) & np.uint64(0x7F)
        more = (lengths[longer] > place + 1).astype(np.uint64) << np.uint64(7)
        out[starts[longer] + place] = digit | more
    return out.tobytes()


def unpack_int64(data: bytes | memoryview) -> npt.NDArray[np.int64]:
    """Unpack varints into int64. Raises ValueError if one is truncated or too long."""
    raw = np.frombuffer(data, dtype=np.uint8)
    last = raw < 0x80
    if last.all():
        return raw.astype(np.int64)
    if not last[-1]:
        raise ValueError("a number is truncated")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(raw.size) - np.repeat(starts, ends - starts + 1)
    if int(place.max()) >= _MAX_VARINT_BYTES:
        raise ValueError("a number is longer than ten bytes")
    digits = (raw & 0x7F).astype(np.uint64) << (place.astype(np.uint64) * np.uint64(7))
    return np.bitwise_or.reduceat(digits, starts).view(np.int64)


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Decode the varint at `at`; return (value below 2**64, position after it). Raises ValueError.

    Of a longer number the lowest 64 bits count, as in protobuf.
    """
    value = shift = 0
    while True:
        if at >= len(data) or shift >= 7 * _MAX_VARINT_BYTES:
            raise ValueError("a number is truncated")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK_64, at
        shift += 7
