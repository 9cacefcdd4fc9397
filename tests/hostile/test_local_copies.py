"""Local copies that somebody changed, and readers that somebody else would like to remove."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from pathlib import Path

import pytest

from dscache import Client, Dataset
from dscache.config import Config
from dscache.errors import UsageError
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store
from support.datasets import contents, publish, random_files
from support.running import dscache

pytestmark = pytest.mark.store
FILES = random_files([5000, 5000])


@pytest.fixture
def live(store: Store) -> Live:
    return publish(store, FILES)


def damage_end(shard: Path) -> None:
    with shard.open("ab") as file:
        file.write(b"xx")


def damage_start(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[2:])


@pytest.mark.parametrize("damage", [damage_end, damage_start, Path.unlink])
@pytest.mark.parametrize("which", [0, -1])
def test_a_changed_file_is_fetched_again(
    damage: object, which: int, live: Live, client_config: Config
) -> None:
    assert callable(damage)
    client = Client(client_config)
    dataset = client.get(live.spec.key)
    dataset.close()
    damage(dataset.path / live.members[which].name)
    assert Client(client_config).get(live.spec.key).path == dataset.path
    assert contents(dataset.path) == FILES


def test_only_the_changed_file_is_fetched(live: Live, client_config: Config) -> None:
    client = Client(client_config)
    dataset = client.get(live.spec.key)
    dataset.close()
    times = {name: (dataset.path / name).stat().st_mtime_ns for name in FILES}
    first, second = (member.name for member in live.shards)
    damage_end(dataset.path / first)
    client.get(live.spec.key)
    assert (dataset.path / second).stat().st_mtime_ns == times[second]


def test_the_command_line_does_not_hand_it_out(live: Live, client_config: Config) -> None:
    path = Path(dscache(client_config, "get", live.spec.key).out.strip())
    damage_end(path / live.members[0].name)
    ran = dscache(client_config, "get", live.spec.key)
    assert (ran.code, Path(ran.out.strip())) == (0, path)
    assert contents(path) == FILES


def test_a_manifest_of_garbage_between_braces_is_no_hit(live: Live, client_config: Config) -> None:
    path = Path(dscache(client_config, "get", live.spec.key).out.strip())
    (path / "manifest.json").write_bytes(b"{garbage}")
    ran = dscache(client_config, "get", live.spec.key)
    assert ran.code == 0, ran.err
    assert json.loads((path / "manifest.json").read_bytes())["zip_etag"] == live.zip_etag


def test_a_changed_copy_in_a_shared_cache_is_passed_over(
    live: Live, client_config: Config, tmp_path: Path
) -> None:
    shared = Client(client_config).get(live.spec.key).path
    damage_end(shared / live.members[0].name)
    mine = client_config._replace(home=tmp_path / "mine", shared_homes=(client_config.home,))
    assert Client(mine).get(live.spec.key).path.is_relative_to(tmp_path / "mine")


# -- every Dataset object protects its folder, however it came to its process


def read_until_told(pickled: bytes, told: object, ready: object) -> None:
    """In a process of its own: hold a dataset that came as bytes."""
    dataset = pickle.loads(pickled)
    assert dataset.path.is_dir()
    ready.set()  # type: ignore[attr-defined]
    told.wait(60)  # type: ignore[attr-defined]


def test_a_dataset_that_was_pickled_cannot_be_removed(live: Live, client_config: Config) -> None:
    client = Client(client_config)
    dataset = client.get(live.spec.key)
    pickled = pickle.dumps(dataset)
    dataset.close()
    spawn = multiprocessing.get_context("spawn")
    told, ready = spawn.Event(), spawn.Event()
    reader = spawn.Process(target=read_until_told, args=(pickled, told, ready))
    reader.start()
    try:
        assert ready.wait(60)
        with pytest.raises(UsageError, match="in use"):
            client.cache.remove(live.spec.key)
    finally:
        told.set()
        reader.join(60)
    assert client.cache.remove(live.spec.key) > 0


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))]
)
def test_each_copy_protects_it_until_it_is_closed(
    duplicate: object, live: Live, client_config: Config
) -> None:
    assert callable(duplicate)
    client = Client(client_config)
    dataset = client.get(live.spec.key)
    other: Dataset = duplicate(dataset)
    dataset.close()
    with pytest.raises(UsageError, match="in use"):
        client.cache.remove(live.spec.key)
    other.close()
    assert client.cache.remove(live.spec.key) > 0


def test_a_copy_of_a_closed_dataset_protects_nothing(live: Live, client_config: Config) -> None:
    client = Client(client_config)
    dataset = client.get(live.spec.key)
    dataset.close()
    copy.copy(dataset)
    assert client.cache.remove(live.spec.key) > 0


def test_a_worker_s_part_protects_it(live: Live, client_config: Config) -> None:
    client = Client(client_config)
    dataset = client.get(live.spec.key)
    part = pickle.loads(pickle.dumps(dataset.shard(0, 2)))
    dataset.close()
    with pytest.raises(UsageError, match="in use"):
        client.cache.remove(live.spec.key)
    del part
