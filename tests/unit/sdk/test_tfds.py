"""TFDS opens a folder of ours. Imports TensorFlow and tensorflow_datasets."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dscache_sdk import (
    BBoxes,
    ClassLabel,
    ClassLabels,
    Image,
    Scalar,
    Tensor,
    Text,
    features_to_json,
    infer_features,
)
from dscache_sdk.example import compile_encoder, encode_example
from dscache_sdk.features.base import Feature
from dscache_sdk.reading import iter_examples
from dscache_sdk.records import RecordWriter
from dscache_sdk.tfds import dataset_info_json, shard_name
from support.examples import assert_same
from support.handlers import Example

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_datasets.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*"),
]

FEATURES = {
    "image": Image("jpeg"),
    "mask": Image("png", (None, None, 1)),
    "pixels": Image("raw"),
    "fixed": Image("raw", (4, 6, 3)),
    "id": Text(),
    "label": ClassLabel(["ant", "bee", "cät"]),
    "counted": ClassLabel(num_classes=9),
    "things": ClassLabels(["ant", "bee"]),
    "boxes": BBoxes(),
    "flag": Scalar("bool"),
    "small": Scalar("uint8"),
    "score": Scalar("float32"),
    "exact": Scalar("float64"),
    "big": Scalar("uint64"),
    "vector": Tensor((3,), "float32"),
    "free": Tensor((None, 2), "float32"),
    "last": Tensor((2, None), "int64"),
    "bytes": Tensor((2, 2), "int16"),
    "free bytes": Tensor((None, 2), "int32"),
    "wide": Tensor((2,), "uint64"),
    "unsigned": Tensor((2,), "uint32"),
    "words": Tensor((None,), "string"),
    "dynamic": Tensor((None, None), "float32"),
}


def example(number: int) -> Example:
    random = np.random.default_rng(number)
    picture = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return {
        "image": picture,
        "mask": picture[:, :, :1],
        "pixels": picture,
        "fixed": picture,
        "id": f"ä/{number}",
        "label": number % 3,
        "counted": number % 9,
        "things": [0, 1, 1][: number % 4],
        "boxes": np.sort(random.random((number % 3, 2, 2), np.float32), axis=1).reshape(-1, 4),
        "flag": number % 2 == 0,
        "small": 255 - number,
        "score": number / 4,
        "exact": 0.1 * number,
        "big": 2**64 - 1 - number,
        "vector": random.random(3, dtype=np.float32),
        "free": random.random((number % 3, 2), dtype=np.float32),
        "last": np.arange(2 * number).reshape(2, number) - 3,
        "bytes": np.array([[number, -1], [-(2**15), 2**15 - 1]], np.int16),
        "free bytes": np.full((number % 3, 2), -number, np.int32),
        "wide": np.array([2**64 - 1, number], np.uint64),
        "unsigned": np.array([2**32 - 1, number], np.uint32),
        "words": ["ä"] * (number % 3),
        "dynamic": random.random((number % 3, 2), dtype=np.float32),
    }


@pytest.fixture(scope="module")
def tfds() -> ModuleType:
    return importlib.import_module("tensorflow_datasets")


def write_folder(
    folder: Path,
    features: Mapping[str, Feature],
    splits: dict[str, list[int]],
    records: Iterable[bytes],
    name: str = "my-photos",
    version: str = "v7",
) -> None:
    """A folder as a build leaves it: shards, dataset_info.json, features.json."""
    folder.mkdir(exist_ok=True)
    numbers = iter(records)
    described = {}
    for split, lengths in splits.items():
        size = 0
        for index, length in enumerate(lengths):
            path = folder / shard_name(name, split, index, len(lengths))
            with RecordWriter(path) as writer:
                for _ in range(length):
                    writer.write(next(numbers))
            size += writer.bytes
        described[split] = (lengths, size)
    (folder / "dataset_info.json").write_bytes(dataset_info_json(name, version, described))
    (folder / "features.json").write_text(features_to_json(features), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encode = compile_encoder(FEATURES)
    records = [encode(example(number)) for number in range(9)]
    write_folder(tmp_path / "set", FEATURES, {"train": [3, 0, 2], "val": [4]}, records)
    return tmp_path / "set"


def test_tfds_opens_the_folder_and_reads_every_feature(tfds: ModuleType, folder: Path) -> None:
    builder = tfds.builder_from_directory(folder)
    assert builder.name == "my_photos"
    assert str(builder.version) == "0.0.0"
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    assert counts == {"train": 5, "val": 4}
    for split in counts:
        files = sorted(folder.glob(f"my_photos-{split}.*"))
        ours = iter_examples(files, FEATURES)
        config = tfds.ReadConfig(interleave_cycle_length=1)
        theirs = tfds.as_numpy(builder.as_dataset(split=split, read_config=config))
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)


def test_tfds_knows_the_names_of_the_classes(tfds: ModuleType, folder: Path) -> None:
    features = tfds.builder_from_directory(folder).info.features
    assert features["label"].names == ["ant", "bee", "cät"]
    assert features["label"].int2str(2) == "cät"
    assert features["counted"].num_classes == 9
    assert features["things"].feature.names == ["ant", "bee"]
    assert isinstance(features["boxes"].feature, tfds.features.BBoxFeature)


def test_tfds_describes_features_as_we_do(tfds: ModuleType, folder: Path) -> None:
    """Read by TFDS and written again, the descriptions are the same."""
    import json

    from google.protobuf import json_format

    parsed = tfds.features.FeatureConnector.from_config(str(folder))
    theirs = json_format.MessageToDict(parsed.to_proto())["featuresDict"]["features"]
    ours = json.loads((folder / "features.json").read_text("utf-8"))["featuresDict"]["features"]
    assert ours.keys() == theirs.keys() == FEATURES.keys()
    for name, described in ours.items():
        described.pop("description", None)
        if name in ("label", "things"):  # TFDS keeps the names in a file of their own
            continue
        theirs[name].pop("description", None)
        if name in ("pixels", "fixed"):
            assert theirs[name]["tensor"]["dtype"] == "uint8"
        assert described == theirs[name]


def test_tfds_slices_and_shuffles(tfds: ModuleType, folder: Path) -> None:
    builder = tfds.builder_from_directory(folder)
    half = list(tfds.as_numpy(builder.as_dataset(split="train[:2]")))
    assert len(half) == 2
    shuffled = tfds.as_numpy(builder.as_dataset(split="train+val", shuffle_files=True))
    assert sorted(one["id"].decode() for one in shuffled) == [f"ä/{n}" for n in range(9)]


def test_tfds_opens_records_whose_features_were_inferred(tfds: ModuleType, tmp_path: Path) -> None:
    records = [
        encode_example({"image/id": f"a{n}", "n": n, "x": [0.5] * n, "words": ["a", "b"]})
        for n in range(2, 5)
    ]
    features = infer_features(records[0])
    write_folder(tmp_path / "set", features, {"train": [3]}, records, "plain", "1.2.3")
    builder = tfds.builder_from_directory(tmp_path / "set")
    assert str(builder.version) == "1.2.3"
    theirs = list(tfds.as_numpy(builder.as_dataset(split="train")))
    files = sorted((tmp_path / "set").glob("plain-train*"))
    for one, other in zip(iter_examples(files, features), theirs, strict=True):
        assert_same(one, other)
