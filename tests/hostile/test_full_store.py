"""The store's disk is full: whoever waits is told, and everybody else goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dscache
from dscache.config import Config
from dscache.devstack.localstore import LocalStore
from dscache.errors import BuildFailed, StoreFull
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache.store.upload import FilePiece
from dscache_builder.attempt.attempt import RETRY_PAUSES_S
from dscache_sdk.example import encode_example
from dscache_sdk.records import RecordWriter
from support.running import Builder
from support.smalldisk import on_a_small_disk

pytestmark = [pytest.mark.store, pytest.mark.system]

DISK_MIB = 120
FILE_MIB = 24
ANSWER_S = sum(RETRY_PAUSES_S) + 60.0


@pytest.fixture
def full_store(minio_binary: Path, tmp_path: Path) -> Iterator[LocalStore]:
    program = on_a_small_disk(minio_binary, tmp_path, DISK_MIB)
    with LocalStore(tmp_path / "full-store", program) as server:
        yield server


@pytest.fixture
def builder_config(full_store: LocalStore, tmp_path: Path) -> Config:
    """Of the small store: `new_builder` works there."""
    return full_store.builder_config._replace(home=tmp_path / "home")


@pytest.fixture
def big_records(tmp_path: Path) -> Path:
    """Record files that do not fit on the disk together."""
    folder = tmp_path / "big"
    folder.mkdir()
    for number in range(DISK_MIB // FILE_MIB + 1):
        with RecordWriter(folder / f"big-train-{number}.tfrecord") as writer:
            writer.write(encode_example({"noise": os.urandom(FILE_MIB << 20)}))
    return folder


def test_the_reason_is_known_although_the_store_closes_the_connection(
    full_store: LocalStore, tmp_path: Path
) -> None:
    store = Store(full_store.builder_config)
    part = tmp_path / "part"
    part.write_bytes(os.urandom(FILE_MIB << 20))
    upload_id = store.create_upload("datasets/x.zip", {})
    with pytest.raises(StoreFull, match=r"part \d+: the store at .* is full"):
        for number in range(1, 40):
            store.upload_part(
                "datasets/x.zip", upload_id, number, [FilePiece(part, FILE_MIB << 20)]
            )


def test_whoever_waits_is_told_and_the_next_dataset_is_built(
    full_store: LocalStore,
    new_builder: Callable[..., Builder],
    big_records: Path,
    numbers: Path,
    tmp_path: Path,
) -> None:
    datasets = {
        "greedy": {"handler": "greedy", "raw": str(big_records), "source": "greedy=={version}"},
        "counting": {"handler": "counting", "raw": str(numbers), "source": "counting=={version}"},
    }
    client = dscache.Client(full_store.client_config._replace(home=tmp_path / "client"))
    builder = new_builder(datasets=datasets, max_builds=1, workers=1).start()
    with pytest.raises(BuildFailed, match=r"the store at .* is full") as failed:
        client.get(Spec.of("greedy", "1.0.0", {"how": "absolute"}), timeout_s=ANSWER_S)
    assert failed.value.kind == "store"
    small = client.get(Spec.of("counting", "1.0.0", {}), timeout_s=60.0)
    assert len(list(small)) == 6
    assert builder.stop() == 0
