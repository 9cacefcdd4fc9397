"""TensorFlow reads what we write, and agrees with our reading. Imports TensorFlow."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dscache_sdk import (
    BBoxes,
    ClassLabel,
    ClassLabels,
    DatasetHandler,
    Image,
    RecordError,
    Sample,
    Scalar,
    Tensor,
    Text,
)
from dscache_sdk.example import compile_encoder, decode_example, encode_example
from dscache_sdk.reading import iter_examples, tfdata
from dscache_sdk.records import RecordWriter, read_records
from support.examples import assert_same
from support.handlers import Example

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*"),
]

COUNT = 5

FEATURES = {
    "image": Image("jpeg"),
    "mask": Image("png", (None, None, 1)),
    "pixels": Image("raw"),
    "fixed": Image("raw", (4, 6, 3)),
    "text": Text(),
    "label": ClassLabel(["a", "b", "c"]),
    "labels": ClassLabels(["a", "b"]),
    "boxes": BBoxes(),
    "code": Scalar("string"),
    "flag": Scalar("bool"),
    "small": Scalar("uint8"),
    "count": Scalar("int64"),
    "score": Scalar("float32"),
    "exact": Scalar("float64"),
    "vector": Tensor((3,), "float32"),
    "bytes": Tensor((2, 2), "int16"),
    "wide": Tensor((2,), "uint64"),
    "unsigned": Tensor((2,), "uint32"),
    "free": Tensor((None, 2), "float32"),
    "words": Tensor((None,), "string"),
    "dynamic": Tensor((None, None), "float16"),
    "bits": Tensor((None, 3), "bool"),
}


def example(number: int) -> Example:
    random = np.random.default_rng(number)
    picture = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return {
        "image": picture,
        "mask": picture[:, :, :1],
        "pixels": picture,
        "fixed": picture,
        "text": f"ä {number}",
        "label": number % 4 - 1,
        "labels": ["a", "b", "b", "a"][:number],
        "boxes": np.sort(random.random((number, 2, 2), dtype=np.float32), axis=1).reshape(-1, 4),
        "code": b"\xff\x00",
        "flag": number % 2 == 0,
        "small": 255 - number,
        "count": -(2**63) + number,
        "score": number / 4,
        "exact": 0.1 * number,
        "vector": random.random(3, dtype=np.float32),
        "bytes": np.array([[number, -1], [-(2**15), 2**15 - 1]], np.int16),
        "wide": np.array([2**64 - 1, number], np.uint64),
        "unsigned": np.array([2**32 - 1, number], np.uint32),
        "free": random.random((number, 2), dtype=np.float32),
        "words": ["ä"] * number,
        "dynamic": random.random((number, 2)).astype(np.float16),
        "bits": random.random((number, 3)) < 0.5,
    }


@pytest.fixture(scope="module")
def tf() -> ModuleType:
    return importlib.import_module("tensorflow")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.tfrecord"
    encode = compile_encoder(FEATURES)
    with RecordWriter(path) as writer:
        for number in range(COUNT):
            writer.write(encode(example(number)))
    return path


def test_tensorflow_finds_the_same_records(tf: ModuleType, path: Path) -> None:
    theirs = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert theirs == list(read_records(path))


def test_we_read_what_tensorflow_writes(tf: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "theirs.tfrecord"
    records = [b"", b"a", b"x" * 100_000]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(path)) == records
    ours = tmp_path / "ours.tfrecord"
    with RecordWriter(ours) as writer:
        for record in records:
            writer.write(record)
    assert ours.read_bytes() == path.read_bytes()


def test_examples_are_byte_for_byte_those_of_tensorflow(tf: ModuleType) -> None:
    proto = tf.train.Example()
    feature = proto.features.feature
    feature["ints"].int64_list.value.extend([0, 1, 127, 128, 2**63 - 1, -1, -(2**63)])
    feature["floats"].float_list.value.extend([0.5, -1.25, 3e38])
    feature["bytes"].bytes_list.value.extend([b"", b"abc", b"\xff" * 300])
    feature["one"].bytes_list.value.append("ä".encode())
    feature["zero ints"].int64_list.SetInParent()
    feature["zero floats"].float_list.SetInParent()
    feature["nothing"].SetInParent()
    ours = encode_example(
        {
            "ints": [0, 1, 127, 128, 2**63 - 1, -1, -(2**63)],
            "floats": [0.5, -1.25, 3e38],
            "bytes": [b"", b"abc", b"\xff" * 300],
            "one": "ä",
            "zero ints": np.zeros(0, np.int64),
            "zero floats": np.zeros(0, np.float32),
            "nothing": [],
        }
    )
    assert ours == proto.SerializeToString(deterministic=True)
    assert encode_example(proto) == proto.SerializeToString()
    decoded = decode_example(proto.SerializeToString())
    assert list(decoded["ints"]) == list(feature["ints"].int64_list.value)
    np.testing.assert_array_equal(decoded["floats"], feature["floats"].float_list.value)
    assert decoded["bytes"] == list(feature["bytes"].bytes_list.value)
    assert [len(decoded[name]) for name in ("zero ints", "zero floats", "nothing")] == [0, 0, 0]


def test_parse_example_agrees_with_our_decoding(tf: ModuleType, path: Path) -> None:
    record = list(read_records(path))[3]
    parsed = tf.io.parse_single_example(
        record,
        {
            "vector": tf.io.FixedLenFeature((3,), tf.float32),
            "count": tf.io.FixedLenFeature((), tf.int64),
            "text": tf.io.FixedLenFeature((), tf.string),
            "words": tf.io.RaggedFeature(tf.string),
            "free": tf.io.RaggedFeature(tf.float32),
            "unsigned": tf.io.VarLenFeature(tf.int64),
        },
    )
    ours = decode_example(record)
    np.testing.assert_array_equal(parsed["vector"], ours["vector"])
    np.testing.assert_array_equal(parsed["free"], ours["free"])
    assert parsed["count"].numpy() == ours["count"][0]
    assert parsed["text"].numpy() == ours["text"][0]
    assert parsed["words"].numpy().tolist() == ours["words"]
    np.testing.assert_array_equal(tf.sparse.to_dense(parsed["unsigned"]), ours["unsigned"])


def test_single_examples_agree_with_iter_examples(tf: ModuleType, path: Path) -> None:
    ours = list(iter_examples([path], FEATURES))
    theirs = list(tfdata([path], FEATURES))
    assert len(ours) == len(theirs) == COUNT
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one, other)


def test_batches_agree_with_iter_examples(tf: ModuleType, path: Path) -> None:
    features = {name: f for name, f in FEATURES.items() if name not in ("dynamic", "bits")}
    (batch,) = tfdata([path], features, batch_size=10)
    for number, one in enumerate(iter_examples([path], features)):
        assert_same(one, {name: tensor[number] for name, tensor in batch.items()})
    assert batch["boxes"].shape.as_list() == [COUNT, None, 4]
    assert batch["image"].shape == (COUNT, 4, 6, 3)


STACKED = (
    "fixed", "text", "label", "code", "flag", "small", "count", "score", "exact", "vector", "bytes",
    "wide", "unsigned",
)  # fmt: skip


@pytest.mark.parametrize(
    "names", [STACKED, ("image", "mask", "pixels", "fixed", "text", "vector", "bytes")]
)
@pytest.mark.parametrize("batch_size", [2, 3, 10])
def test_batches_are_the_examples_in_order_however_they_are_parsed(
    tf: ModuleType, path: Path, names: tuple[str, ...], batch_size: int
) -> None:
    features = {name: FEATURES[name] for name in names}
    batches = list(tfdata([path], features, batch_size=batch_size))
    lengths = [len(batch["text"]) for batch in batches]
    assert lengths == [min(batch_size, COUNT - at) for at in range(0, COUNT, batch_size)]
    theirs = [
        {name: tensor[at] for name, tensor in batch.items()}
        for batch, length in zip(batches, lengths, strict=True)
        for at in range(length)
    ]
    for one, other in zip(iter_examples([path], features), theirs, strict=True):
        assert_same(one, other)


def test_large_pixels_are_batched(tf: ModuleType, tmp_path: Path) -> None:
    features = {"pixels": Image("raw", (200, 200, 3)), "n": Scalar("int64")}
    encode, path = compile_encoder(features), tmp_path / "large.tfrecord"
    with RecordWriter(path) as writer:
        for n in range(COUNT):
            writer.write(encode({"pixels": np.full((200, 200, 3), n, np.uint8), "n": n}))
    batches = tfdata([path], features, batch_size=3)
    assert tuple(batches.element_spec["pixels"].shape) == (None, 200, 200, 3)
    found = [(batch["n"].numpy().tolist(), batch["pixels"].numpy()) for batch in batches]
    assert [numbers for numbers, _ in found] == [[0, 1, 2], [3, 4]]
    for numbers, pixels in found:
        assert [set(each.ravel()) for each in pixels] == [{n} for n in numbers]


def test_small_records_are_parsed_many_at_a_time(tf: ModuleType, tmp_path: Path) -> None:
    features = {"id": Text(), "n": Scalar("int64"), "v": Tensor((3,), "float32")}
    encode = compile_encoder(features)
    files = [tmp_path / "a.tfrecord", tmp_path / "b.tfrecord"]
    for start, file in enumerate(files):
        with RecordWriter(file) as writer:
            for n in range(start, 1000, 2):
                writer.write(encode({"id": str(n), "n": n, "v": [n, 0.5, -n]}))
    theirs = list(tfdata(files, features))
    for one, other in zip(iter_examples(files, features), theirs, strict=True):
        assert_same(one, other)
    shuffled = [int(one["n"]) for one in tfdata(files, features, shuffle=100)]
    assert sorted(shuffled) == list(range(1000))
    assert shuffled != [int(one["n"]) for one in theirs]
    sizes = [int(batch["n"].shape[0]) for batch in tfdata(files, features, batch_size=300)]
    assert sizes == [300, 300, 300, 100]
    order = [int(n) for batch in tfdata(files, features, batch_size=7) for n in batch["n"]]
    assert order == [int(one["n"]) for one in theirs]


def test_pictures_can_stay_encoded(tf: ModuleType, path: Path) -> None:
    features = {"image": Image(), "id": Text()}
    del features["id"]
    (first, *_) = tfdata([path], features, decode=False)
    assert first["image"].numpy().startswith(b"\xff\xd8\xff")
    (batch,) = tfdata([path], features, batch_size=10, decode=False)
    assert batch["image"].shape == (COUNT,)


def test_shapes_are_static_where_declared(tf: ModuleType, path: Path) -> None:
    spec = tfdata([path], FEATURES).element_spec
    for name in ("image", "fixed", "vector", "bytes", "free"):
        feature = FEATURES[name]
        assert isinstance(feature, Image | Tensor)
        assert tuple(spec[name].shape) == feature.shape


def test_a_handler_maps_its_files_and_takes_tensorflows_examples(
    tf: ModuleType, tmp_path: Path
) -> None:
    class Foreign(DatasetHandler, name="foreign"):
        features = {"n": Scalar("int64"), "text": Text()}  # noqa: RUF012

        def samples(self) -> Iterable[Sample]:
            return [Sample(str(number)) for number in range(9)]

        def example(self, loaded: object, sample: Sample, rng: np.random.Generator) -> Any:
            proto = tf.train.Example()
            proto.features.feature["n"].int64_list.value.append(int(sample.id))
            proto.features.feature["text"].bytes_list.value.append(b"x")
            return proto

    handler = Foreign({}, str(tmp_path))
    handler.output_dir = tmp_path
    mapped = handler.tf_records_mapper(handler.as_tfrecord())
    assert sorted(int(one["n"]) for one in mapped) == list(range(9))


def test_damage_is_noticed_by_both(tf: ModuleType, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordError):
        list(read_records(path))
    with pytest.raises(tf.errors.DataLossError):
        list(tf.data.TFRecordDataset(str(path)))
