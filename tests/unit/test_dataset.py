"""What `get` returns: paths, information and examples of a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import DscacheError, IntegrityError, UsageError
from dscache.folder import contents
from dscache.folder.contents import contents_of
from dscache.protocol.manifests import BadSample, Live
from dscache.reading.dataset import Dataset
from support.datasets import described, example_files, unpacked

RECORDS = {"train": [3, 4], "val": [2]}


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return described(
        example_files(tmp_path, RECORDS),
        raw_revision="r7",
        bad_samples=[BadSample(sample="7.jpg", error="truncated", traceback="long")],
    )


@pytest.fixture
def folder(tmp_path: Path, live: Live) -> Path:
    """A dataset outside of any cache."""
    return unpacked(tmp_path / "ds", example_files(tmp_path, RECORDS), live)


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    return Dataset(folder)


def ids(split: str, counts: list[int]) -> list[str]:
    return [f"{split}/{shard}/{i}" for shard, count in enumerate(counts) for i in range(count)]


def test_it_is_a_path(dataset: Dataset, folder: Path) -> None:
    assert os.fspath(dataset) == str(folder)
    assert dataset.path == folder
    assert (Path(dataset) / contents.MANIFEST).exists()


def test_it_knows_its_spec(dataset: Dataset, live: Live) -> None:
    assert dataset.spec == live.spec
    assert dataset.key == live.spec.key


def test_info(dataset: Dataset, live: Live) -> None:
    info = dataset.info
    assert info["splits"] == info["held"] == {"train": 7, "val": 2}
    assert info["bytes"] == sum(member.size for member in live.members)
    assert info["raw_revision"] == "r7"
    assert info["bad_samples"] == [{"sample": "7.jpg", "error": "truncated"}]


def test_repr(dataset: Dataset, folder: Path) -> None:
    assert repr(dataset) == f"Dataset('{folder}', train: 7, val: 2)"


def test_files(dataset: Dataset, folder: Path) -> None:
    train = [str(folder / f"photos-train.tfrecord-0000{i}-of-00002") for i in range(2)]
    assert dataset.files("train") == train
    assert dataset.files() == [*train, str(folder / "photos-val.tfrecord-00000-of-00001")]


def test_examples(dataset: Dataset) -> None:
    train = list(dataset.examples("train"))
    assert [example["id"] for example in train] == ids("train", [3, 4])
    assert [int(example["number"]) for example in train] == [0, 1, 2, 0, 1, 2, 3]
    assert [example["id"] for example in dataset] == ids("train", [3, 4]) + ids("val", [2])


def test_an_unknown_split_names_those_there_are(dataset: Dataset) -> None:
    for ask in (dataset.files, dataset.examples, dataset.tfdata):
        with pytest.raises(UsageError, match="no split 'test' in photos; available: train, val"):
            ask("test")


def test_a_partial_copy_gives_what_it_has(folder: Path, live: Live) -> None:
    held = {member.name for member in live.members} - {live.shards[0].name, live.shards[2].name}
    (folder / contents.PARTIAL).write_bytes(contents.encode(contents_of(live, held)))
    dataset = Dataset(folder)
    assert dataset.info["splits"] == {"train": 7, "val": 2}
    assert dataset.info["held"] == {"train": 4}
    assert dataset.files() == [str(folder / live.shards[1].name)]
    with pytest.raises(UsageError, match="'val' is not in this partial copy"):
        dataset.files("val")


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing"):
        Dataset(tmp_path)


def test_a_damaged_manifest(folder: Path) -> None:
    (folder / contents.MANIFEST).write_bytes(b'{"state": "live"}')
    with pytest.raises(IntegrityError, match=r"manifest\.json: not a manifest"):
        Dataset(folder).files()


def test_without_tensorflow_the_remedy_is_named(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delitem(sys.modules, "dscache_sdk.tfparse", raising=False)
    with pytest.raises(DscacheError, match=r"pip install dscache\[tf\]"):
        dataset.tfdata("train")


def test_tfdata(dataset: Dataset) -> None:
    batches = list(dataset.tfdata("train", batch_size=5).as_numpy_iterator())
    numbers: list[Any] = [list(batch["number"]) for batch in batches]
    assert numbers == [[0, 1, 2, 0, 1], [2, 3]]
    (first, *_) = dataset.tfdata("val").as_numpy_iterator()
    assert first["id"] == b"val/0/0"


def test_tfds_opens_the_folder(dataset: Dataset) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(dataset)
    assert builder.info.splits["train"].num_examples == 7
    read = list(builder.as_dataset(split="train").as_numpy_iterator())
    assert sorted(example["id"].decode() for example in read) == sorted(ids("train", [3, 4]))
