"""The compiled encoder: the same bytes and the same refusals as the general one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache_sdk import BBoxes, ClassLabel, FeatureError, Image, Scalar, Tensor, Text
from dscache_sdk.example import (
    check_names,
    column_names,
    compile_encoder,
    compile_pieces,
    decode_features,
    encode_example,
)
from dscache_sdk.features.base import Feature, Shape
from support.handlers import Example

FEATURES = {
    "z text": Text(),
    "label": ClassLabel(["a", "b'c", "{d}"]),
    "n": Scalar("int64"),
    "flag": Scalar("bool"),
    "f": Scalar("float32"),
    "v": Tensor((3,), "float32"),
    "u8": Tensor((2, 2), "uint8"),
    "free": Tensor((None, 2), "int64"),
    "boxes": BBoxes(),
    "names": Tensor((None,), "string"),
}
EXAMPLE = st.fixed_dictionaries(
    {
        "z text": st.text(),
        "label": st.sampled_from([-1, 0, 1, 2, "a", "b'c", "{d}", np.int64(1)]),
        "n": st.integers(-(2**63), 2**63 - 1),
        "flag": st.booleans(),
        "f": st.floats(width=32, allow_nan=False),
        "v": st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3).flatmap(
            lambda v: st.sampled_from([v, np.array(v, np.float32)])
        ),
        "u8": st.binary(min_size=4, max_size=4).map(
            lambda b: np.frombuffer(b, np.uint8).reshape(2, 2).T
        ),
        "free": st.integers(0, 5).map(lambda n: np.arange(2 * n).reshape(n, 2)),
        "boxes": st.sampled_from([[], [[0, 0, 1, 1]], [[0.25, 0, 0.5, 1], [0, 0, 0, 0]]]),
        "names": st.lists(st.text(max_size=5), max_size=3),
    }
)


def generally(features: Mapping[str, Feature], example: Example) -> bytes:
    """The record by the general way, feature by feature."""
    columns = {}
    for name, feature in features.items():
        encoded = feature.encode(example[name])
        if isinstance(encoded, dict):
            columns.update({f"{name}/{part}": value for part, value in encoded.items()})
        else:
            columns[name] = encoded
    return encode_example(columns)


compiled = compile_encoder(FEATURES)


@given(EXAMPLE)
def test_compiled_and_general_agree(example: Example) -> None:
    record = compiled(example)
    assert record == generally(FEATURES, example)
    decoded = decode_features(record, FEATURES)
    assert decoded["z text"] == example["z text"]
    assert decoded["n"] == example["n"]
    np.testing.assert_array_equal(decoded["u8"], example["u8"])
    np.testing.assert_array_equal(decoded["free"], example["free"])
    assert decoded["boxes"].shape == (len(example["boxes"]), 4)


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
@pytest.mark.parametrize("shape", [(40, 50, 3), (None, None, 3), (None, 50, 3)])
def test_pictures_in_one_piece_and_in_several(encoding: str, shape: Shape) -> None:
    features = {"image": Image(encoding, shape), "id": Text(), "big": Tensor((5000,), "float32")}
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    example = {"image": picture, "id": "ä", "big": np.arange(5000, dtype=np.float32)}
    record = compile_encoder(features)(example)
    assert record == b"".join(compile_pieces(features)(example)) == generally(features, example)
    decoded = decode_features(record, features)
    assert decoded["image"].shape == (40, 50, 3)
    if encoding != "jpeg":
        np.testing.assert_array_equal(decoded["image"], picture)


GOOD = {"t": "x", "n": 1, "f": 0.5, "v": np.zeros(2, np.float32), "c": 0, "i": b"\xff\xd8\xff"}
SMALL = {
    "t": Text(),
    "n": Scalar("int8"),
    "f": Scalar("float32"),
    "v": Tensor((2,), "float32"),
    "c": ClassLabel(num_classes=2),
    "i": Image(),
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("t", 3, "expected text, got int"),
        ("t", "\ud800", "cannot be encoded"),
        ("n", 200, "cannot be written as int8"),
        ("n", 1.5, "cannot be written as int8"),
        ("n", "1", "expected int8, got str"),
        ("n", None, "expected int8"),
        ("f", "x", "expected float32, got str"),
        ("f", 1e300, "exceeds the range of float32"),
        ("v", np.zeros(2), "dtype float64 is not the declared float32"),
        ("v", np.zeros((2, 1), np.float32), r"shape \(2, 1\) does not match the declared \(2,\)"),
        ("v", [1.0], r"shape \(1,\)"),
        ("c", 2, "class 2 is not in the range 0 to 1"),
        ("c", "dog", "no class 'dog'"),
        ("c", 0.5, "expected an integer"),
        ("i", b"GIF89a", "not a jpeg file"),
        ("i", np.zeros((4, 4, 3)), "dtype float64 is not uint8"),
        ("i", np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        ("i", 5, "expected an image, got int"),
    ],
)
@pytest.mark.parametrize("make", [compile_encoder, compile_pieces])
def test_refusals_name_the_feature(
    make: Callable[[Mapping[str, Feature]], Callable[[Example], object]],
    name: str,
    value: object,
    message: str,
) -> None:
    encode = make(SMALL)
    encode(GOOD)
    with pytest.raises(FeatureError, match=message) as caught:
        encode({**GOOD, name: value})
    assert caught.value.feature == name
    assert str(caught.value).startswith(f"feature '{name}': ")


def test_missing_and_surplus_names() -> None:
    encode = compile_encoder(SMALL)
    with pytest.raises(FeatureError, match="'n': missing"):
        encode({name: value for name, value in GOOD.items() if name != "n"})
    with pytest.raises(FeatureError, match="'extra': not a declared"):
        encode({**GOOD, "extra": 1})
    with pytest.raises(FeatureError, match="'n': missing"):
        encode({**{k: v for k, v in GOOD.items() if k != "n"}, "extra": 1})


def test_what_is_cached_does_not_change_what_is_accepted() -> None:
    encode = compile_encoder({"n": Scalar("int64")})
    fresh = [compile_encoder({"n": Scalar("int64")})({"n": v}) for v in (1, True, 1.0)]
    warm = [encode({"n": v}) for v in (1, True, 1.0, np.int32(1))]
    assert len({*fresh, *warm}) == 1


def test_no_features_make_an_empty_example() -> None:
    assert compile_encoder({})({}) == encode_example({}) == b"\x0a\x00"


def test_check_names() -> None:
    record = encode_example({"t": "x", "extra": 1})
    with pytest.raises(FeatureError, match="'extra': not a declared"):
        check_names(record, {"t": Text()})
    with pytest.raises(FeatureError, match="'u': missing"):
        check_names(encode_example({"t": "x"}), {"t": Text(), "u": Text()})
    assert column_names({"b": Image("raw"), "a": Text()}) == ["a", "b/shape", "b/value"]


def test_decoding_names_the_feature() -> None:
    record = encode_example({"t": "x"})
    with pytest.raises(FeatureError, match="'n': not in the record, which contains t"):
        decode_features(record, {"n": Scalar("int64")})
    with pytest.raises(FeatureError, match="'t': expected numbers"):
        decode_features(record, {"t": Scalar("int64")})
