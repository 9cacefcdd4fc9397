"""Plans: samples, splits, shards, their names and digests."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dscache_sdk import (
    DatasetHandler,
    HandlerContractError,
    RawDataError,
    Sample,
    Tensor,
    hash_split,
)
from dscache_sdk.plan import SHARD_MAX_BYTES, Plan, samples_by_bytes, samples_per_shard
from support.handlers import Example
from support.texts import Texts


def test_the_plan_covers_every_sample_once(raw: Path) -> None:
    plan = Texts({"batch_size": 6, "variations_per_sample": 2, "val": 0.3}, str(raw)).plan()
    placed = [number for shard in plan.shards for number in shard.samples]
    assert placed == list(range(20))
    assert sorted(sample.id for sample in plan.samples) == sorted(
        f"sub/{number:02d}.txt" for number in range(20)
    )
    assert plan.examples == 40 == sum(shard.examples for shard in plan.shards)
    assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))
    for shard in plan.shards:
        assert {plan.samples[number].split for number in shard.samples} == {shard.split}
        assert len(shard.samples) <= 3


def test_names_are_those_of_tfds(raw: Path) -> None:
    handler = Texts({"batch_size": 8, "val": 0.3}, str(raw))
    names = [shard.name for shard in handler.plan().shards]
    assert names[0] == "my_texts-train.tfrecord-00000-of-00002"
    assert names[-1].startswith("my_texts-val.tfrecord-00000-of-")
    assert handler.plan("2-other").shards[0].name.startswith("d2_other-train.")


def test_the_plan_is_shuffled_and_repeatable(raw: Path) -> None:
    handler = Texts({"batch_size": 5}, str(raw))
    ids = [sample.id for sample in handler.plan().samples]
    assert ids != sorted(ids)
    assert handler.plan() == Texts({"batch_size": 5}, str(raw)).plan()
    assert msgspec.json.decode(msgspec.json.encode(handler.plan()), type=Plan) == handler.plan()


def test_the_order_of_samples_does_not_matter(raw: Path) -> None:
    class Backwards(Texts, name="my-texts"):
        def samples(self) -> Iterable[Sample]:
            return reversed(list(super().samples()))

    assert Backwards({}, str(raw)).plan() == Texts({}, str(raw)).plan()


def test_the_digest_knows_what_decides_the_bytes(raw: Path) -> None:
    def digest(**config: Any) -> str:
        return Texts(config, str(raw)).plan().digest

    before = digest()
    assert len(before) == 64
    assert len({before, digest(seed=1), digest(batch_size=3), digest(val=0.5)}) == 4
    path = raw / "sub" / "03.txt"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = digest()
    assert touched != before
    path.write_text("longer than it was")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest() not in (before, touched)
    path.write_text("text 3")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest() == before


class Pairs(Texts, name="pairs"):
    """Texts with a file each that belongs to them, and one that belongs to all."""

    def samples(self) -> Iterable[Sample]:
        for sample in super().samples():
            yield Sample(sample.id, files=(sample.id.replace(".txt", ".note"),))

    def shared_files(self) -> list[str]:
        return self.raw.files("*.all")


@pytest.mark.parametrize("name", ["sub/07.note", "x.all"])
def test_the_digest_knows_further_files(raw: Path, name: str) -> None:
    def digest() -> str:
        return Pairs({}, str(raw)).plan().digest

    found = [digest()]
    path = raw / name
    path.write_text("one")
    status = path.stat()
    found.append(digest())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    found.append(digest())
    path.write_text("one more")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found.append(digest())
    assert len(set(found)) == 4
    path.write_text("one")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest() == found[1]


def test_samples_with_files_travel_as_json(raw: Path) -> None:
    plan = Pairs({}, str(raw)).plan()
    assert plan.samples[0].files == (plan.samples[0].id.replace(".txt", ".note"),)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


@pytest.mark.parametrize(
    ("count", "variations", "batch_size", "expected"),
    [(10, 1, 4, [4, 4, 2]), (10, 3, 10, [3, 3, 3, 1]), (2, 5, 3, [1, 1]), (4, 1, 4, [4])],
)
def test_batch_size_limits_the_examples_of_a_file(
    count: int, variations: int, batch_size: int, expected: list[int]
) -> None:
    assert samples_per_shard(count, variations, batch_size) == expected


def test_files_are_sized_by_bytes_and_even() -> None:
    for count, size in ((1, 10), (1000, 1 << 20), (257, 1 << 20), (7, 300 << 20), (10**6, 150e3)):
        shares = samples_by_bytes(count, size)
        assert sum(shares) == count
        assert max(shares) - min(shares) <= 1
        if count > 100:
            assert min(shares) * size >= 64 << 20
            assert max(shares) * size <= SHARD_MAX_BYTES + size


def test_files_are_sized_from_the_first_readable_samples(tmp_path: Path) -> None:
    class Big(DatasetHandler, name="big"):
        features = {"x": Tensor((1 << 20,), "uint8")}  # noqa: RUF012
        loads = 0

        def samples(self) -> Iterable[Sample]:
            return [Sample(str(number)) for number in range(600)]

        def load(self, sample: Sample) -> None:
            Big.loads += 1
            if Big.loads < 3:
                raise OSError("unreadable")

        def example(self, loaded: object, sample: Sample, rng: np.random.Generator) -> Example:
            return {"x": np.zeros(1 << 20, np.uint8)}

    plan = Big({}, str(tmp_path)).plan()
    assert len(plan.shards) == 5  # 600 MiB at 128 MiB each
    assert Big.loads == 5


def test_nothing_to_do_is_an_error_that_names_folder_and_pattern(tmp_path: Path) -> None:
    with pytest.raises(RawDataError) as caught:
        Texts({}, str(tmp_path)).plan()
    assert str(tmp_path) in str(caught.value)
    assert "**/*.txt" in str(caught.value)
    with pytest.raises(RawDataError, match="there is no folder"):
        Texts({}, str(tmp_path / "missing")).plan()


def with_files(files: Any) -> Sample:
    """A sample with files of whatever type, as a handler without annotations may give it."""
    return Sample("a", files=files)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([Sample("a"), Sample("a", "val")], "'a' twice"),
        ([Sample("")], "non-empty"),
        (["a"], "yielded a str"),
        ([Sample("a", "all")], "invalid split name"),
        ([with_files("a.png")], "expected a tuple of paths"),
        ([with_files((1,))], "expected a tuple of paths"),
        ([Sample("a", "my-split")], "invalid split name"),
    ],
)
def test_samples_that_break_the_contract(tmp_path: Path, samples: list[Any], message: str) -> None:
    class Given(Texts, name="given"):
        def samples(self) -> Iterable[Sample]:
            return samples

    with pytest.raises(HandlerContractError, match=message):
        Given({}, str(tmp_path)).plan()


def test_a_handler_without_features_is_refused(tmp_path: Path) -> None:
    class Empty(Texts, name="empty"):
        features = {}  # noqa: RUF012

        def samples(self) -> Iterable[Sample]:
            return [Sample("a")]

    with pytest.raises(HandlerContractError, match="declares no features"):
        Empty({}, str(tmp_path)).plan()


def test_splits_are_stable_and_about_as_large_as_asked() -> None:
    ids = [f"picture-{number}.jpg" for number in range(5000)]
    splits = {name: hash_split(name, val=0.2, test=0.1) for name in ids}
    counts = [list(splits.values()).count(split) for split in ("train", "val", "test")]
    assert abs(np.array(counts) / 5000 - (0.7, 0.2, 0.1)).max() < 0.02
    for name in ids:
        assert (hash_split(name, val=0.4, test=0.1) == "test") == (splits[name] == "test")
    assert {hash_split(name, val=1.0) for name in ids} == {"val"}
    assert {hash_split(name, val=0.0) for name in ids} == {"train"}
    for wrong in ((-0.1, 0), (0.7, 0.4)):
        with pytest.raises(ValueError, match="add up to at most 1"):
            hash_split("a", *wrong)
