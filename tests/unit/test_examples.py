"""How training reads: seeds, workers, the handler's own mapper, PyTorch."""

from __future__ import annotations

import copy
import importlib
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dscache.errors import DscacheError, UsageError
from dscache.reading.dataset import Dataset
from dscache_sdk.features import Feature, Image, Scalar
from dscache_sdk.handler import DatasetHandler
from support.datasets import described, example_files, unpacked

RECORDS = {"train": [5, 5, 5, 5, 5], "val": [4]}
LARGE_FEATURES: dict[str, Feature] = {"n": Scalar("int64"), "image": Image("jpeg")}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """25 small examples in 5 files, and a split with a single file."""
    files = example_files(tmp_path, RECORDS)
    return Dataset(unpacked(tmp_path / "ds", files, described(files)))


def ids(examples: Any) -> list[str]:
    found = [example["id"] for example in examples]
    return [each.decode() if isinstance(each, bytes) else str(each) for each in found]


def tf_ids(reader: Any, **how: Any) -> list[str]:
    return ids(reader.tfdata("train", **how).as_numpy_iterator())


def test_a_seed_gives_the_order_again_and_another_one_another(dataset: Dataset) -> None:
    kept = tf_ids(dataset)
    orders = [tf_ids(dataset, shuffle=8, seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in (kept, *orders)}) == 3
    assert all(sorted(order) == sorted(kept) for order in orders)


def test_epochs_of_one_seed_differ_and_repeat(dataset: Dataset) -> None:
    def epochs() -> list[list[str]]:
        data = dataset.tfdata("train", shuffle=100, seed=3)
        return [ids(data.as_numpy_iterator()) for _ in range(3)]

    first = epochs()
    assert len({tuple(epoch) for epoch in first}) == 3
    assert first == epochs()


def test_numpy_examples_are_shuffled_by_a_seed(dataset: Dataset) -> None:
    kept = ids(dataset.examples("train"))
    once, again = (ids(dataset.examples("train", shuffle=8, seed=1)) for _ in range(2))
    assert once == again != kept
    assert sorted(once) == sorted(kept)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_workers_read_disjoint_parts_in_numpy_and_tensorflow(dataset: Dataset, count: int) -> None:
    shards = [dataset.shard(index, count) for index in range(count)]
    numpy = [ids(shard.examples("train")) for shard in shards]
    assert sorted(chain.from_iterable(numpy)) == sorted(ids(dataset.examples("train")))
    assert [tf_ids(shard) for shard in shards] == numpy
    shuffled = [sorted(tf_ids(shard, shuffle=10, seed=1)) for shard in shards]
    assert shuffled == [sorted(part) for part in numpy]


def test_a_shard_of_a_shard(dataset: Dataset) -> None:
    parts = [
        ids(dataset.shard(outer, 2).shard(inner, 3).examples("train"))
        for outer in range(2)
        for inner in range(3)
    ]
    assert sorted(chain.from_iterable(parts)) == sorted(ids(dataset.examples("train")))


def test_more_workers_than_examples(dataset: Dataset) -> None:
    shards = [dataset.shard(index, 6) for index in range(6)]
    assert [len(tf_ids_of_val(shard)) for shard in shards] == [1, 1, 1, 1, 0, 0]
    assert [len(list(shard.examples("val"))) for shard in shards] == [1, 1, 1, 1, 0, 0]


def tf_ids_of_val(reader: Any) -> list[str]:
    return ids(reader.tfdata("val", shuffle=4, seed=0).as_numpy_iterator())


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_no_such_worker(dataset: Dataset, index: int, count: int) -> None:
    with pytest.raises(UsageError, match="workers are counted from 0"):
        dataset.shard(index, count)


def test_large_records_are_interleaved_when_shuffled_and_only_then(tmp_path: Path) -> None:
    from dscache_sdk.example import encode_example
    from dscache_sdk.reading import tfdata
    from dscache_sdk.records import RecordWriter

    files = []
    picture = b"\xff\xd8\xff" + bytes(70_000)
    for number in range(4):
        files.append(tmp_path / f"{number}")
        with RecordWriter(files[-1]) as writer:
            for record in range(3):
                writer.write(encode_example({"n": 10 * number + record, "image": picture}))

    def numbers(**how: Any) -> list[int]:
        data = tfdata(files, LARGE_FEATURES, decode=False, **how)
        return [int(example["n"]) for example in data.as_numpy_iterator()]

    kept = [10 * number + record for number in range(4) for record in range(3)]
    assert numbers() == kept
    # one record held back keeps the order: what is seen is that of the files
    once = numbers(shuffle=1, seed=5)
    assert once == numbers(shuffle=1, seed=5)
    assert sorted(once) == kept
    assert {number // 10 for number in once[:4]} == {0, 1, 2, 3}


# the handler's own mapper


class Plain(DatasetHandler, name="photos"):
    """Reads as everybody does."""


class Own(DatasetHandler, name="photos"):
    """Gives the lengths of the records."""

    class Options(DatasetHandler.Options, kw_only=True):
        size: int = 1

    def tf_records_mapper(self, files: Any) -> Any:
        import tensorflow as tf

        if self.options.size != 4:
            raise ValueError("other options")
        return tf.data.TFRecordDataset(files).map(tf.strings.length)


class Shuffling(Own, name="photos"):
    """Gives the numbers, in an order of its own each time it is asked."""

    def tf_records_mapper(self, files: Any) -> Any:
        import tensorflow as tf

        def number(record: Any) -> Any:
            found = {"number": tf.io.FixedLenFeature((), tf.int64)}
            return tf.io.parse_single_example(record, found)["number"]

        return tf.data.TFRecordDataset(files).map(number).shuffle(100)


class Broken(Own, name="photos"):
    """Cannot read them."""

    def tf_records_mapper(self, files: Any) -> Any:
        raise ValueError("no such feature")


class Refusing(Own, name="photos"):
    """Has no option `size`, which the dataset was built with."""

    class Options(DatasetHandler.Options, kw_only=True):
        """No options."""


class Distribution(NamedTuple):
    version: str


class Point(NamedTuple):
    kind: type
    version: str = "1.0.0"

    @property
    def dist(self) -> Distribution:
        return Distribution(self.version)

    def load(self) -> type:
        return self.kind


def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    def entry_points(*, group: str, name: str) -> list[Point]:
        return list(points) if (group, name) == ("dscache.handlers", "photos") else []

    monkeypatch.setattr(metadata, "entry_points", entry_points)


def test_the_handlers_own_mapper_is_used(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point(Plain, "0.9.0"), Point(Own))
    batches = list(dataset.tfdata("train", batch_size=10).as_numpy_iterator())
    assert [batch.shape for batch in batches] == [(10,), (10,), (5,)]
    assert sum(len(list(dataset.shard(i, 3).tfdata("train"))) for i in range(3)) == 25
    orders = [
        [int(n) for n in dataset.tfdata("train", shuffle=9, seed=1).as_numpy_iterator()]
        for _ in range(2)
    ]
    assert orders[0] == orders[1]
    assert tf_ids(dataset, handler=False) == ids(dataset.examples("train"))


@pytest.mark.parametrize("point", [Point(Own, "1.0.1"), Point(Plain)])
def test_another_version_or_no_mapper_of_its_own(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    install(monkeypatch, point)
    assert tf_ids(dataset) == ids(dataset.examples("train"))


def test_a_mapper_that_fails_names_the_way_out(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Point(Broken))
    with pytest.raises(DscacheError, match=r"no such feature; tfdata\(handler=False\)"):
        dataset.tfdata("train")
    install(monkeypatch, Point(Refusing))
    with pytest.raises(DscacheError, match=r"size.*; tfdata\(handler=False\)"):
        dataset.tfdata("train")


def test_each_worker_gets_whole_files_from_a_mapper_that_may_shuffle(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Point(Shuffling))
    files = len(dataset.files("train"))
    for count in range(1, files + 1):
        read = [
            int(number)
            for rank in range(count)
            for number in dataset.shard(rank, count).tfdata("train").as_numpy_iterator()
        ]
        assert sorted(read) == sorted(e["number"] for e in dataset.examples("train"))
    with pytest.raises(UsageError, match=rf"takes whole files, and there are {files}; tfdata\(h"):
        dataset.shard(files, files + 1).tfdata("train")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": -1}, {"shuffle": 0}])
def test_numbers_that_make_no_sense(dataset: Dataset, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"expected a number of at least 1"):
        dataset.tfdata("train", **wrong)


def test_nothing_to_shuffle_with(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="shuffle=0"):
        dataset.examples("train", shuffle=0)


# PyTorch, which is too large to be had here: a stand-in with the names that are used


class Worker(NamedTuple):
    id: int
    num_workers: int


class Tensor(np.ndarray[Any, np.dtype[np.int64]]):
    """Numbers in memory that is shared."""

    def share_memory_(self) -> Tensor:
        return self

    def fill_(self, value: int) -> None:
        self.fill(value)


def zeros(count: int, dtype: Any) -> Tensor:
    return np.zeros(count, dtype).view(Tensor)


@pytest.fixture
def torch_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    data: Any = types.ModuleType("torch.utils.data")
    data.IterableDataset = type("IterableDataset", (), {})
    data.get_worker_info = lambda: None
    torch: Any = types.ModuleType("torch")
    utils: Any = types.ModuleType("torch.utils")
    torch.utils, utils.data = utils, data
    torch.int64, torch.zeros = np.int64, zeros
    for module in (torch, utils, data):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield data
    sys.modules.pop("dscache.torchdata", None)
    importlib.invalidate_caches()


def test_without_pytorch_the_remedy_is_named(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DscacheError, match=r"pip install dscache\[torch\]"):
        dataset.torch("train")


def test_the_workers_of_a_data_loader_divide_the_examples(
    dataset: Dataset, torch_data: Any
) -> None:
    read = dataset.torch("train")
    alone = ids(read)
    assert alone == ids(dataset.examples("train"))
    parts = []
    for worker in range(3):
        torch_data.get_worker_info = lambda worker=worker: Worker(worker, 3)
        parts += ids(read)
    assert sorted(parts) == sorted(alone)
    torch_data.get_worker_info = lambda: Worker(0, 2)
    ranks = [ids(dataset.shard(rank, 2).torch("train")) for rank in range(2)]
    assert not set(ranks[0]) & set(ranks[1])


def test_epochs_in_pytorch(dataset: Dataset, torch_data: Any) -> None:
    read = dataset.torch("train", shuffle=10, seed=1)
    epochs = [ids(read) for _ in range(2)]
    assert epochs[0] != epochs[1]
    read.set_epoch(0)
    assert ids(read) == epochs[0]
    with pytest.raises(UsageError, match="no split 'test'"):
        dataset.torch("test")


def test_epochs_with_new_worker_processes_for_each(dataset: Dataset, torch_data: Any) -> None:
    """As a DataLoader has them by default: they get copies, of which only shared memory is one."""
    read = dataset.torch("train", shuffle=10, seed=1)

    def epoch() -> list[list[str]]:
        results = []
        for worker in range(2):
            torch_data.get_worker_info = lambda worker=worker: Worker(worker, 2)
            results.append(ids(copy.copy(read)))
        return results

    first, second = epoch(), epoch()
    assert first != second
    assert sorted(first[0] + first[1]) == sorted(second[0] + second[1])
    read.set_epoch(0)
    assert epoch() == first
    with pytest.raises(UsageError, match="shuffle=0"):
        dataset.torch("train", shuffle=0)
