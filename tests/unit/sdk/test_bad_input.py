"""Damaged records, descriptions and pictures are refused with the SDK's errors, and cheaply.

Each of these raised another exception once. `tests/fuzz` looks for more.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from PIL import Image as PillowImage

from dscache_sdk import DatasetHandler, OptionsError, wire
from dscache_sdk.codec import decode_example, encode_example
from dscache_sdk.errors import FeatureError, RecordError
from dscache_sdk.example import decode_features
from dscache_sdk.features import (
    BBoxes,
    ClassLabel,
    Feature,
    Image,
    Scalar,
    Tensor,
    Text,
    features_from_json,
    features_to_json,
)
from dscache_sdk.images import open_mask, open_rgb, upright_size
from dscache_sdk.options import parse_options
from dscache_sdk.tfds import parse_shard_name, shard_name


def entry(kind: bytes, content: bytes) -> bytes:
    """A record with one column "a": a list of that kind with this content."""
    inner = kind + wire.varint(len(content)) + content
    value = b"\x12" + wire.varint(len(inner)) + inner
    return wire.delimited(wire.delimited(wire.map_key("a") + value))


def test_a_number_of_more_than_64_bits_is_cut_as_in_protobuf() -> None:
    record = entry(wire.INT64_TAG, b"\x08" + b"\xff" * 9 + b"\x7f")
    np.testing.assert_array_equal(decode_example(record)["a"], [-1])


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_may_be_packed_or_not(packed: bool) -> None:
    numbers = [1, 300, 2**63 - 1]
    payload = b"".join(map(wire.varint, numbers))
    single = b"".join(b"\x08" + wire.varint(number) for number in numbers)
    content = b"\x0a" + wire.varint(len(payload)) + payload if packed else single
    np.testing.assert_array_equal(decode_example(entry(wire.INT64_TAG, content))["a"], numbers)


def test_floats_may_be_packed_or_not() -> None:
    halves = struct.pack("<f", 0.5), struct.pack("<f", 1.5)
    single = b"".join(b"\x0d" + half for half in halves)
    packed = b"\x0a\x08" + b"".join(halves)
    for content in (single, packed):
        column = decode_example(entry(wire.FLOAT_TAG, content))["a"]
        assert isinstance(column, np.ndarray)
        assert (column.dtype.name, column.tolist()) == ("float32", [0.5, 1.5])


@pytest.mark.parametrize("content", [b"\x0a\x03abc", b"\x0d\x00", b"\x08\x01"])
def test_floats_that_are_none(content: bytes) -> None:
    with pytest.raises(RecordError):
        decode_example(entry(wire.FLOAT_TAG, content))


WRONG: list[tuple[Feature, dict[str, Any]]] = [
    (ClassLabel(["a"]), {"f": [0.5]}),
    (Scalar("uint64"), {"f": [0.5]}),
    (Scalar("int32"), {"f": [float("nan")]}),
    (Tensor((None,), "int64"), {"f": [float("inf")]}),
    (Tensor((2,), "float32"), {"f": [1, 2]}),
    (BBoxes(), {"f": [1, 2, 3, 4]}),
    (Tensor((None, None), "uint8"), {"f/shape": [float("nan"), 1.0], "f/value": b"a"}),
    (Tensor((None, None), "uint8"), {"f/shape": [-1, 1], "f/value": b"a"}),
    (Tensor((None, None), "uint8"), {"f/shape": [2**62, 2**62], "f/value": b"a"}),
    (Tensor((None, None), "uint8"), {"f/shape": [b"a", b"b"], "f/value": b"a"}),
    (Text(), {"f": [1]}),
]


@pytest.mark.parametrize(("feature", "columns"), WRONG)
def test_a_record_with_other_columns(feature: Feature, columns: dict[str, Any]) -> None:
    with pytest.raises(FeatureError, match="'f'"):
        decode_features(encode_example(columns), {"f": feature})


def described(**changes: Any) -> str:
    document = json.loads(features_to_json({"t": Tensor((2, 3), "int32")}))
    document["featuresDict"]["features"]["t"].update(changes)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "not a features.json"),
        ("[" * 100_000, "not a features.json"),
        ('{"featuresDict": {"features": ' + "[" * 100_000, "not a features.json"),
        ('{"featuresDict": {"features": {"t": []}}}', "'t'"),
        ('{"featuresDict": {"features": {"t": 1}}}', "'t'"),
        (described(tensor=[]), "'t'"),
        (described(tensor={"dtype": "int32", "shape": {"dimensions": ["1"] * 33}}), "no array"),
        (described(tensor={"dtype": "int32", "shape": {"dimensions": [2**40]}}), "no array"),
        (described(tensor={"dtype": "int32", "shape": {"dimensions": [1e999]}}), "'t'"),
        (described(tensor={"dtype": "int32", "shape": 1}), "'t'"),
        (described(tensor={"dtype": {"a": 1}, "shape": {}}), "'t'"),
    ],
    ids=range(11),
)
def test_a_description_that_is_none(text: str | bytes, said: str) -> None:
    with pytest.raises(FeatureError, match=said):
        features_from_json(text)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says how large it is, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


BROKEN = {
    "bomb": png(60_000, 60_000),
    "chunk": png(4, 4, b"\0" * 8).replace(b"IDAT", b"\0\0\0\0"),
    "empty": b"",
    "cut": png(4, 4)[:20],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_in_a_record(name: str) -> None:
    with pytest.raises(FeatureError, match="not a readable image"):
        Image("png", (None, None, 1)).decode([BROKEN[name]])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_in_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(BROKEN[name])
    for read in (open_rgb, open_mask):
        with pytest.raises((OSError, ValueError)):
            read(path)
    if name != "chunk":  # the size of that one can be read
        with pytest.raises((OSError, ValueError)):
            upright_size(path)


def test_a_picture_of_another_size_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(FeatureError, match=r"\(9000, 9000, 1\) does not match"):
        Image("png", (10, 10, 1)).decode([png(9_000, 9_000)])


def test_a_record_holds_no_other_kind_of_picture() -> None:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (4, 4)).save(buffer, "GIF")
    with pytest.raises(FeatureError, match="not a readable image"):
        Image("png", (None, None, 3)).decode([buffer.getvalue()])


class Named(DatasetHandler, name="named"):
    class Options(msgspec.Struct, kw_only=True):
        title: Literal["a", "b"] = "a"


def test_an_option_that_is_no_text() -> None:
    with pytest.raises(OptionsError, match="'title': contains a lone surrogate"):
        parse_options(Named.Options, {"title": "\ud800"})


def test_a_shard_with_a_number_of_many_digits() -> None:
    assert parse_shard_name(f"a-train.tfrecord-{'9' * 5000}-of-00001") is None
    assert parse_shard_name("a-train.tfrecord-٠٠٠٠١-of-00002") is None
    assert parse_shard_name(shard_name("a", "train", 1, 2)) == ("a", "train", 1, 2)
