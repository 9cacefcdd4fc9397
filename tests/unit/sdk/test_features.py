"""Features: values, refusals, features.json, inference."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from dscache_sdk import (
    BBoxes,
    ClassLabel,
    ClassLabels,
    FeatureError,
    Image,
    Scalar,
    Tensor,
    Text,
    features_from_json,
    features_to_json,
    infer_features,
)
from dscache_sdk.example import compile_encoder, decode_features, encode_example
from dscache_sdk.features.base import Feature, Shape
from support.handlers import class_names

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "float32", "float64"]


def there_and_back(feature: Feature, value: Any) -> Any:
    features = {"x": feature}
    return decode_features(compile_encoder(features)({"x": value}), features)["x"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (None, 3), (2, None), (None, None), ()])
def test_tensors_come_back(dtype: str, shape: Shape) -> None:
    if dtype == "uint32" and shape == (None, None):
        with pytest.raises(FeatureError, match="supports one free size"):
            Tensor(shape, dtype)
        return
    limits = np.finfo(dtype) if dtype.startswith("f") else None
    top = 1 if dtype == "bool" else limits.max if limits else np.iinfo(dtype).max
    value = np.array([[top, 0, 1], [1, 0, top]], dtype=dtype)
    value = value[0, 0:1].reshape(()) if shape == () else value
    back = there_and_back(Tensor(shape, dtype), value)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_keep_their_extremes(dtype: str) -> None:
    if dtype == "bool":
        values: list[float] = [True, False]
    elif dtype.startswith("f"):
        values = [float(np.finfo(dtype).max), -0.5]
    else:
        values = [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]
    for value in values:
        back = there_and_back(Scalar(dtype), value)
        assert back == value
        assert back.dtype == dtype


@pytest.mark.parametrize("shape", [(None, None), (None, 3), (0, 3)])
def test_empty_tensors(shape: Shape) -> None:
    for dtype in ("uint8", "float32", "int64"):
        value = np.zeros((0, 3), dtype)
        assert there_and_back(Tensor(shape, dtype), value).shape == (0, 3)


def test_big_endian_and_strided_arrays() -> None:
    value = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(there_and_back(Tensor((3, 2), "float32"), value), value)
    value = np.arange(12, dtype=">i2").reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(there_and_back(Tensor((3, 2), "int16"), value), value)


def test_strings() -> None:
    back = there_and_back(Tensor((2,), "string"), ["ä", b"\xff"])
    assert back.tolist() == ["ä".encode(), b"\xff"]
    assert there_and_back(Scalar("string"), b"\x00\xff") == b"\x00\xff"
    assert there_and_back(Tensor((None,), "string"), []).tolist() == []


def test_labels() -> None:
    label = ClassLabel(["cat", "dog"])
    assert [there_and_back(label, value) for value in ("dog", 0, -1, b"cat")] == [1, 0, -1, 0]
    assert [label.name_of(number) for number in (1, -1)] == ["dog", ""]
    assert ClassLabel(num_classes=3).name_of(2) == "2"


def test_labels_of_several_things() -> None:
    labels = ClassLabels(["cat", "dog"])
    back = there_and_back(labels, ["dog", 0, np.int64(-1)])
    assert back.dtype == np.int64
    assert back.tolist() == [1, 0, -1]
    assert there_and_back(labels, np.array([1, 1])).tolist() == [1, 1]
    assert there_and_back(labels, []).shape == (0,)
    assert labels.names == ["cat", "dog"]
    assert repr(labels) == "ClassLabels(['cat', 'dog'])"
    assert labels != ClassLabels(num_classes=2)
    wrong = {
        "cow": "no class 'cow'",
        2: "class 2 is not in the range",
        "dog": "list of classes, got str",
    }
    for value, message in wrong.items():
        with pytest.raises(FeatureError, match=message):
            labels.encode(value if value == "dog" else [value])
    with pytest.raises(FeatureError, match="got shape"):
        labels.encode(np.zeros((1, 1), int))
    with pytest.raises(FeatureError, match="got int"):
        labels.encode(1)


def test_boxes() -> None:
    boxes = np.array([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]], np.float64)
    back = there_and_back(BBoxes(), boxes)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, boxes, rtol=1e-6)
    assert there_and_back(BBoxes(), []).shape == (0, 4)
    for wrong in ([[0.5, 0, 0.2, 1]], [[0, 0, 1, 1.1]], [[0, 0, 1]], "x", [[0, 0, np.nan, 1]]):
        with pytest.raises(FeatureError, match="box"):
            BBoxes().encode(wrong)


def test_pictures() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert there_and_back(Image("png", (8, 8, 1)), grey).shape == (8, 8, 1)
    np.testing.assert_array_equal(there_and_back(Image("png", (8, 8, 1)), grey)[:, :, 0], grey)
    rgba = np.full((4, 5, 4), 7, np.uint8)
    np.testing.assert_array_equal(there_and_back(Image("png", (None, None, 4)), rgba), rgba)
    pillow = PillowImage.new("RGB", (5, 4), (200, 100, 50))
    assert abs(there_and_back(Image(), pillow).astype(int) - (200, 100, 50)).max() < 4
    np.testing.assert_array_equal(there_and_back(Image("raw"), pillow), np.asarray(pillow))
    np.testing.assert_array_equal(there_and_back(Image("raw", (4, 5, 3)), pillow), pillow)


def test_encoded_files_are_taken_as_they_are() -> None:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (5, 4)).save(buffer, "JPEG", quality=33)
    assert Image().encode(buffer.getvalue()) == buffer.getvalue()


def test_quality_changes_the_bytes_but_not_the_feature() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert len(Image(quality=30).encode(noise)) < len(Image(quality=95).encode(noise))
    assert Image(quality=30) == Image(quality=95)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image("gif"), "jpeg, png or raw"),
        (lambda: Image("jpeg", (None, None, 4)), "is not that of an image"),
        (lambda: Image("jpeg", (8, 8)), "is not that of an image"),
        (lambda: Image(quality=0), "quality"),
        (lambda: Tensor(3, "float32"), "tuple of sizes"),
        (lambda: Tensor((-1,), "float32"), "integers or None"),
        (lambda: Tensor((1,), "complex64"), "cannot be written"),
        (lambda: Tensor((1,), "float33"), "cannot be written"),
        (lambda: Tensor((1,), "string", "bytes"), "as bytes"),
        (lambda: ClassLabel(), "either names or num_classes"),
        (lambda: ClassLabel(["a"], num_classes=1), "either names or num_classes"),
        (lambda: ClassLabel(["a", "a"]), "occurs twice"),
        (lambda: ClassLabel([]), "at least one"),
        (lambda: ClassLabel(["a", ""]), "non-empty"),
    ],
)
def test_features_that_cannot_be_made(make: Callable[[], Feature], message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        make()


ALL = {
    "jpeg": Image(),
    "png": Image("png", (8, None, 1)),
    "raw": Image("raw"),
    "raw fixed": Image("raw", (4, 5, 3)),
    "text": Text(),
    "named": ClassLabel(["ä", 'quo"te']),
    "counted": ClassLabel(num_classes=7),
    "several": ClassLabels(["ä", 'quo"te']),
    "several counted": ClassLabels(num_classes=7),
    "boxes": BBoxes(),
    **{f"scalar {dtype}": Scalar(dtype) for dtype in [*DTYPES, "string"]},
    **{f"tensor {dtype}": Tensor((None, 3), dtype) for dtype in [*DTYPES, "string"]},
    "dynamic": Tensor((None, None), "float32"),
}


def test_features_json_comes_back() -> None:
    back = features_from_json(features_to_json(ALL))
    assert back == ALL
    assert {name: type(feature) for name, feature in back.items()} == {
        name: type(feature) for name, feature in ALL.items()
    }
    assert class_names(back["named"]) == ["ä", 'quo"te']
    assert features_to_json(back) == features_to_json(ALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a features.json"),
        ("[]", "not a features.json"),
        ('{"featuresDict": {}}', "not a features.json"),
        (
            '{"featuresDict": {"features": {"a": {"pythonClassName": "x.y.Audio"}}}}',
            "'a': this SDK does not support features of x.y.Audio",
        ),
        (
            '{"featuresDict": {"features": {"a": {"pythonClassName": "x.Tensor", "tensor": '
            '{"dtype": "complex64"}}}}}',
            "'a': dtype 'complex64'",
        ),
    ],
)
def test_other_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        features_from_json(text)


def test_inference() -> None:
    jpeg, png = io.BytesIO(), io.BytesIO()
    PillowImage.new("RGB", (5, 4)).save(jpeg, "JPEG")
    PillowImage.new("L", (5, 4)).save(png, "PNG")
    record = encode_example(
        {
            "image/encoded": jpeg.getvalue(),
            "mask": png.getvalue(),
            "id": "ä",
            "code": b"\xff\x00",
            "n": 3,
            "x": 0.5,
            "many": [1, 2],
            "words": ["a", "b"],
            "none": [],
        }
    )
    inferred = infer_features(record)
    assert inferred == {
        "image/encoded": Image("jpeg"),
        "mask": Image("png", (None, None, 1)),
        "id": Text(),
        "code": Scalar("string"),
        "n": Scalar("int64"),
        "x": Scalar("float32"),
        "many": Tensor((None,), "int64"),
        "words": Tensor((None,), "string"),
        "none": Tensor((None,), "string"),
    }
    assert features_from_json(features_to_json(inferred)) == inferred
    decoded = decode_features(record, inferred)
    assert decoded["image/encoded"].shape == (4, 5, 3)
    assert decoded["words"].tolist() == [b"a", b"b"]


def test_more_records_widen_the_inference() -> None:
    one = encode_example({"n": 1, "t": "x", "only": 1.5})
    two = encode_example({"n": [1, 2], "t": b"\xff"})
    assert infer_features(one, two) == {
        "n": Tensor((None,), "int64"),
        "t": Scalar("string"),
        "only": Tensor((None,), "float32"),
    }
