"""Records as flat columns: tf.train.Example's wire format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache_sdk import FeatureError, RecordError, wire
from dscache_sdk.codec import Columns
from dscache_sdk.example import decode_example, encode_example

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
COLUMN = st.one_of(
    st.lists(INT64, min_size=1, max_size=40).map(lambda v: np.array(v, np.int64)),
    st.lists(FLOAT32, min_size=1, max_size=40).map(lambda v: np.array(v, np.float32)),
    st.lists(st.binary(max_size=300), min_size=1, max_size=4),
)


@given(st.lists(INT64, max_size=60))
def test_packed_integers_come_back(values: list[int]) -> None:
    array = np.array(values, np.int64)
    packed = wire.pack_int64(array)
    assert packed == b"".join(wire.varint(value & (1 << 64) - 1) for value in values)
    assert wire.unpack_int64(packed).tolist() == values


@given(st.integers(0, 2**64 - 1))
def test_varints_come_back(value: int) -> None:
    data = wire.varint(value)
    assert wire.read_varint(memoryview(data), 0) == (value, len(data))


@given(st.dictionaries(st.text(max_size=8), COLUMN, max_size=6))
def test_examples_come_back(example: Columns) -> None:
    decoded = decode_example(encode_example(example))
    assert decoded.keys() == example.keys()
    for name, value in example.items():
        if isinstance(value, np.ndarray):
            have = decoded[name]
            assert isinstance(have, np.ndarray)
            assert have.dtype == value.dtype
            np.testing.assert_array_equal(have, value)
        else:
            assert decoded[name] == value


def test_bytes_do_not_depend_on_the_order_of_a_dict() -> None:
    one = encode_example({"b": 1, "a": b"x", "c": [1.0, 2.0]})
    assert one == encode_example({"c": [1.0, 2.0], "a": b"x", "b": 1})


def test_known_bytes() -> None:
    # Example{features{feature{key "a" value{int64_list{value [1]}}}}}
    assert encode_example({"a": 1}).hex() == "0a0c0a0a0a0161 1205 1a03 0a0101".replace(" ", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ä", ["ä".encode()]),
        (True, [1]),
        (3, [3]),
        (0.5, [0.5]),
        (["a", b"b"], [b"a", b"b"]),
        ([1, 2], [1, 2]),
        ([], []),
        (np.zeros((2, 2), np.float64), [0, 0, 0, 0]),
        (np.array(["x", "y"]), [b"x", b"y"]),
        (np.array([2**63 - 1], np.uint64), [2**63 - 1]),
    ],
)
def test_kinds_of_values(value: Any, expected: list[Any]) -> None:
    assert list(decode_example(encode_example({"v": value}))["v"]) == expected


@pytest.mark.parametrize(
    "value", [None, {"a": 1}, 1j, [b"a", 1], np.array([2**63], np.uint64), 2**70]
)
def test_other_values_are_refused_by_name(value: Any) -> None:
    with pytest.raises(FeatureError, match="feature 'odd'"):
        encode_example({"odd": value})


def test_objects_that_serialise_themselves_are_taken() -> None:
    class Foreign:
        def SerializeToString(self) -> bytes:
            return b"\x0a\x00"

    assert encode_example(Foreign()) == b"\x0a\x00"


def test_unpacked_numbers_are_read() -> None:
    # What an encoder without packing writes: each number a field of its own.
    ints = b"\x1a\x04\x08\x05\x08\x07"
    floats = b"\x12\x05\x0d" + np.float32(0.5).tobytes()
    entries = b""
    for name, feature in ((b"f", floats), (b"i", ints)):
        entry = b"\x0a\x01" + name + b"\x12" + bytes([len(feature)]) + feature
        entries += b"\x0a" + bytes([len(entry)]) + entry
    decoded = decode_example(b"\x0a" + bytes([len(entries)]) + entries)
    assert list(decoded["i"]) == [5, 7]
    assert list(decoded["f"]) == [0.5]


@given(st.binary(max_size=80))
def test_arbitrary_bytes_decode_or_raise_a_record_error(data: bytes) -> None:
    try:
        decode_example(data)
    except RecordError as error:
        assert "not a tf.train.Example" in str(error)


def test_every_truncation_is_noticed() -> None:
    record = encode_example({"a": [b"xy", b"z"], "n": [1, 300], "f": 0.5})
    for cut in range(1, len(record)):
        with pytest.raises(RecordError):
            decode_example(record[:cut])
