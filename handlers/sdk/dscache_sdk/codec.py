"""tf.train.Example records as flat columns, without TensorFlow: encode and decode.

Encoding is deterministic: entries sorted by name, numbers packed, the same bytes as TensorFlow's
``SerializeToString(deterministic=True)``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dscache_sdk import wire
from dscache_sdk.errors import FeatureError, RecordError

Columns = dict[str, "list[bytes] | npt.NDArray[Any]"]


class SerializesToString(Protocol):
    """A protobuf message such as tf.train.Example."""

    def SerializeToString(self) -> bytes: ...


def encode_example(example: Mapping[str, Any] | SerializesToString) -> bytes:
    """Encode one record.

    Args:
        example: name -> bytes, str, int, float, bool, array or list of one of these (arrays are
            flattened; floats become float32, integers int64, text UTF-8). An empty list is
            written as a feature without a type. Or a tf.train.Example.

    Raises:
        FeatureError: a value has another type, or is an integer of more than 64 bits.
    """
    if not isinstance(example, Mapping):
        return example.SerializeToString()
    entries = [encode_column(name, example[name]) for name in sorted(example)]
    return wire.delimited(b"".join(entries))


def encode_column(name: str, value: Any) -> bytes:
    """Encode one entry of the feature map; see `encode_example`."""
    key = wire.map_key(name)
    try:
        return _encode_value(key, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise FeatureError(str(error), name) from error


def _encode_value(key: bytes, value: Any) -> bytes:
    if isinstance(value, bytes):
        return wire.single_prefix(key, wire.BYTES_TAG, len(value)) + value
    if isinstance(value, str):
        return _encode_value(key, value.encode("utf-8"))
    if isinstance(value, list | tuple):
        if not value:
            return wire.delimited(key + b"\x12\x00")
        if any(isinstance(item, bytes | str) for item in value):
            return _encode_many(key, [_to_bytes(item) for item in value])
    return _encode_array(key, np.asarray(value))


def _to_bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode("utf-8")
    raise TypeError(f"expected text or bytes, got {type(item).__name__}")


def _encode_many(key: bytes, items: list[bytes]) -> bytes:
    payload = b"".join(map(wire.delimited, items))
    return wire.entry_prefix(key, wire.BYTES_TAG, b"", len(payload)) + payload


def _encode_array(key: bytes, array: npt.NDArray[Any]) -> bytes:
    kind = array.dtype.kind
    if kind == "f":
        payload = array.astype("<f4", copy=False).tobytes()
        return wire.single_prefix(key, wire.FLOAT_TAG, len(payload)) + payload
    if kind in "iub":
        if kind == "u" and array.size and int(array.max()) > 2**63 - 1:
            raise ValueError(f"{array.max()} does not fit a signed 64-bit integer")
        payload = wire.pack_int64(array.astype(np.int64))
        return wire.single_prefix(key, wire.INT64_TAG, len(payload)) + payload
    if kind in "SUO" and array.size:
        return _encode_many(key, [_to_bytes(item) for item in array.ravel().tolist()])
    raise TypeError(
        f"cannot write a {array.dtype} array; use values of one kind: bytes, text, integers or "
        "floats"
    )


def decode_example(record: bytes | memoryview) -> Columns:
    """Decode one record into flat columns.

    Returns:
        name -> list of bytes, float32 array or int64 array (all one-dimensional). A feature
        without a type is an empty list; of repeated names the last counts, as in protobuf.

    Raises:
        RecordError: the bytes are not a tf.train.Example.
    """
    data = memoryview(record)
    columns: Columns = {}
    try:
        for field, value, _ in _fields(data):
            if field == 1:
                for entry_field, entry, _ in _fields(_message(value)):
                    if entry_field == 1:
                        name, column = _decode_entry(_message(entry))
                        columns[name] = column
    except (ValueError, struct.error) as error:
        raise RecordError(None, 0, f"not a tf.train.Example: {error}") from error
    return columns


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int, int]]:
    at = 0
    while at < len(data):
        tag, at = wire.read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            number, at = wire.read_varint(data, at)
            yield tag >> 3, number, kind
            continue
        if kind == 2:
            length, at = wire.read_varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + length > len(data):
            raise ValueError("a field is truncated")
        yield tag >> 3, data[at : at + length], kind
        at += length


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def _decode_entry(entry: memoryview) -> tuple[str, list[bytes] | npt.NDArray[Any]]:
    name = ""
    column: list[bytes] | npt.NDArray[Any] = []
    for field, value, _ in _fields(entry):
        if field == 1:
            name = str(_message(value), "utf-8")
        elif field == 2:
            for list_field, content, _ in _fields(_message(value)):
                column = _decode_list(list_field, _message(content))
    return name, column


def _decode_list(kind: int, content: memoryview) -> list[bytes] | npt.NDArray[Any]:
    items = [value for field, value, _ in _fields(content) if field == 1]
    if kind == 1:
        return [bytes(_message(value)) for value in items]
    if kind == 2:
        return np.frombuffer(b"".join(map(_message, items)), dtype="<f4")
    if kind == 3:
        # a number that is not packed is one varint, as a packed one is
        packed = (wire.varint(item) if isinstance(item, int) else item for item in items)
        return wire.unpack_int64(b"".join(packed))
    raise ValueError(f"unknown kind of list {kind}")
