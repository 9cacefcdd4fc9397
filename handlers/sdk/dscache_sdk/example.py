"""Encode and decode tf.train.Example records with features.

`compile_encoder` is several times as fast as the general `encode_example` on small records, and
writes the same bytes. Both, and `decode_example`, can be imported from here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from dscache_sdk import wire
from dscache_sdk.codec import Columns, decode_example, encode_column, encode_example
from dscache_sdk.errors import FeatureError
from dscache_sdk.features.base import Encoded, Feature

__all__ = [
    "check_names",
    "column_names",
    "compile_encoder",
    "compile_pieces",
    "decode_example",
    "decode_features",
    "encode_example",
]

Pieces = tuple[bytes, ...]


def decode_features(record: bytes | memoryview, features: Mapping[str, Feature]) -> dict[str, Any]:
    """Decode one record with its features: images to arrays, text to str, boxes to [n, 4] …

    Raises:
        RecordError: the bytes are not a tf.train.Example.
        FeatureError: the record does not match the features; names the feature.
    """
    columns = decode_example(record)
    return {name: _decode_feature(columns, name, feature) for name, feature in features.items()}


def _decode_feature(columns: Columns, name: str, feature: Feature) -> Any:
    try:
        if feature.parts:
            return feature.decode({part: columns[f"{name}/{part}"] for part in feature.parts})
        return feature.decode(columns[name] if feature.required else columns.get(name, []))
    except KeyError as error:
        present = ", ".join(sorted(columns)) or "nothing"
        raise FeatureError(f"not in the record, which contains {present}", name) from error
    except FeatureError as error:
        raise FeatureError(error.message, name) from error


def check_names(record: bytes, features: Mapping[str, Feature]) -> None:
    """Check that a record has exactly the columns of the features.

    Raises:
        FeatureError: names a column that is missing or not declared.
    """
    present = set(decode_example(record))
    declared = set(column_names(features))
    for name in sorted(declared ^ present):
        problem = "missing from the example" if name in declared else "not a declared feature"
        raise FeatureError(problem, name)


def column_names(features: Mapping[str, Feature]) -> list[str]:
    """Names of the record's columns, in the order in which they are written."""
    names: list[str] = []
    for name, feature in features.items():
        names += [f"{name}/{part}" for part in feature.parts] if feature.parts else [name]
    return sorted(names)


def compile_encoder(features: Mapping[str, Feature]) -> Callable[[Mapping[str, Any]], bytes]:
    """Make the encoder of one set of features.

    Returns:
        A function that takes a dict with exactly these names and returns the record. It checks the
        values against their features. The bytes equal `encode_example` of the encoded values.

    The function's source is generated for the set of features: length prefixes are looked up by
    length, labels by value, and constants are folded, which makes 200-byte records cheap. Values
    that the fast path does not know take the general one, so both accept the same values, and all
    error messages are in one place.
    """
    if any(feature.parts for feature in features.values()):
        return _general_encoder(features)
    return _generate(features, _JOIN_ONCE if _any_large(features) else _JOIN_TWICE)


def compile_pieces(features: Mapping[str, Feature]) -> Callable[[Mapping[str, Any]], Pieces]:
    """Like `compile_encoder`, but returns the record in pieces, for `RecordWriter.write`.

    Images are then written without being copied into a record first.
    """
    if not any(feature.parts for feature in features.values()) and _any_large(features):
        return _generate(features, _PIECES)
    encode = compile_encoder(features)
    return lambda example: (encode(example),)


def _generate(features: Mapping[str, Feature], finish: str) -> Callable[[Mapping[str, Any]], Any]:
    general = _general_encoder(features)
    if finish is _PIECES:
        scope: dict[str, Any] = {"general": lambda example: (general(example),)}
    else:
        scope = {"general": general}
    scope.update(heads=_Prefixes(b"", None), FAST=_FALLBACK)
    body: list[str] = []
    pieces: list[str] = []
    for place, name in enumerate(sorted(features)):
        lines, expression = _fast_lines(place, name, features[name], scope)
        body += lines
        pieces += expression
    source = _FUNCTION.format(
        count=len(features),
        body="\n".join(f"        {line}" for line in body) or "        pass",
        finish=finish.format(
            pieces="".join(f"{piece}, " for piece in pieces),
            size=" + ".join(f"len({piece})" for piece in pieces) or "0",
        ),
    )
    exec(compile(source, "<compiled encoder>", "exec"), scope)
    return cast("Callable[[Mapping[str, Any]], Any]", scope["encode"])


def _any_large(features: Mapping[str, Feature]) -> bool:
    return any(map(_is_large, features.values()))


def _is_large(feature: Feature) -> bool:
    if feature.fast == "array":
        dtype, shape, _ = feature.array_layout()
        return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize > 4096
    return feature.fast == ""


_FALLBACK = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    struct.error,
    FeatureError,
)

_FUNCTION = """
def encode(ex):
    if len(ex) != {count}:
        return general(ex)
    try:
{body}
    except FAST:
        return general(ex)
    {finish}
"""
# Large records are copied once. Small ones are cheaper to join before their length is known.
_PIECES = """return (heads[{size}], {pieces})"""
_JOIN_ONCE = """return b"".join((heads[{size}], {pieces}))"""
_JOIN_TWICE = """body = b"".join(({pieces}))
    return heads[len(body)] + body"""


class _Prefixes(dict[int, bytes]):
    """Length of a payload -> the bytes before it; filled on demand, with a bounded size."""

    def __init__(self, key: bytes, tag: bytes | None) -> None:
        super().__init__()
        self._key = key
        self._tag = tag

    def __missing__(self, length: int) -> bytes:
        if len(self) >= 4096:
            self.clear()
        if self._tag is None:
            prefix = b"\x0a" + wire.varint(length)
        else:
            prefix = wire.single_prefix(self._key, self._tag, length)
        self[length] = prefix
        return prefix


class _IntEntries(dict[Any, bytes]):
    """Value of an integer feature -> its entry; filled on demand, with a bounded size."""

    def __init__(self, name: str, feature: Feature) -> None:
        super().__init__()
        self._name = name
        self._feature = feature

    def __missing__(self, value: Any) -> bytes:
        if len(self) >= 4096:
            self.clear()
        entry = encode_column(self._name, self._feature.encode(value))
        self[value] = entry
        return entry


def _fast_lines(
    place: int, name: str, feature: Feature, scope: dict[str, Any]
) -> tuple[list[str], list[str]]:
    value = f"ex[{name!r}]"
    key = wire.map_key(name)
    data, prefixes = f"d{place}", f"p{place}"
    scope[prefixes] = _Prefixes(key, wire.BYTES_TAG)
    if feature.fast == "text":
        lines = [f"{data} = {value}", f"if type({data}) is not str: return general(ex)"]
        return [*lines, f"{data} = {data}.encode()"], [f"{prefixes}[len({data})]", data]
    if feature.fast == "int":
        scope[prefixes] = _IntEntries(name, feature)
        return [f"{data} = {prefixes}[{value}]"], [data]
    if feature.fast == "float":
        scope[prefixes] = wire.single_prefix(key, wire.FLOAT_TAG, 4)
        scope["pack_float"] = struct.Struct("<f").pack
        return [f"{data} = pack_float({value})"], [prefixes, data]
    if feature.fast == "array":
        return _array_lines(place, value, feature, scope, key)
    scope[f"e{place}"] = feature.encode
    scope[f"column{place}"] = lambda encoded: encode_column(name, encoded)
    lines = [
        f"{data} = e{place}({value})",
        f"h{place} = b''",
        f"if type({data}) is bytes: h{place} = {prefixes}[len({data})]",
        f"else: {data} = column{place}({data})",
    ]
    return lines, [f"h{place}", data]


def _array_lines(
    place: int, value: str, feature: Feature, scope: dict[str, Any], key: bytes
) -> tuple[list[str], list[str]]:
    dtype, shape, tag = feature.array_layout()
    data = f"d{place}"
    scope[f"t{place}"], scope[f"s{place}"] = dtype, shape
    payload_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    scope[f"p{place}"] = wire.single_prefix(key, tag, payload_bytes)
    wrong = f"{data}.dtype is not t{place} or {data}.shape != s{place}"
    lines = [f"{data} = {value}", f"if {wrong}: return general(ex)", f"{data} = {data}.tobytes()"]
    return lines, [f"p{place}", data]


def _general_encoder(features: Mapping[str, Feature]) -> Callable[[Mapping[str, Any]], bytes]:
    ordered = sorted(features)

    def encode(example: Mapping[str, Any]) -> bytes:
        columns: dict[str, Encoded] = {}
        for name in ordered:
            if name not in example:
                raise FeatureError("missing from the example", name)
            _encode_feature(columns, name, features[name], example[name])
        for name in example:
            if name not in features:
                declared = ", ".join(ordered)
                raise FeatureError(f"not a declared feature (declared: {declared})", str(name))
        return encode_example(columns)

    return encode


def _encode_feature(columns: dict[str, Encoded], name: str, feature: Feature, value: Any) -> None:
    try:
        encoded = feature.encode(value)
    except FeatureError as error:
        raise FeatureError(error.message, name) from error
    if isinstance(encoded, dict):
        columns.update({f"{name}/{part}": column for part, column in encoded.items()})
    else:
        columns[name] = encoded
