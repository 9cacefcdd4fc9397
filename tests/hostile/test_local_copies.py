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


# -- a folder under another dataset's name


@pytest.fixture
def others(live: Live, store: Store, client_config: Config) -> Live:
    """Another dataset, with the folder of the first one under its name."""
    other = publish(store, random_files([4000, 7000], seed=1), config={"other": True})
    path = Client(client_config).get(live.spec.key).path
    path.rename(path.with_name(other.spec.key))
    return other


def test_the_folder_of_another_dataset_is_not_handed_out(
    others: Live, client_config: Config
) -> None:
    ran = dscache(client_config, "get", others.spec.key)
    assert ran.code == 0, ran.err
    assert contents(Path(ran.out.strip())) == random_files([4000, 7000], seed=1)


@pytest.mark.parametrize("part", [("--split", "train"), ("--shards", "0"), ()])
def test_it_is_no_hit_without_the_store(
    part: tuple[str, ...], others: Live, client_config: Config
) -> None:
    nowhere = client_config._replace(endpoint="http://127.0.0.1:9")
    ran = dscache(nowhere, "get", others.spec.key, *part)
    assert ran.code == 7, ran.out
    folder = client_config.home / "datasets" / others.spec.key
    assert contents(folder) == FILES  # the only copy of something: kept until it can be replaced


def test_it_is_no_hit_in_a_shared_cache(
    others: Live, client_config: Config, tmp_path: Path
) -> None:
    mine = client_config._replace(home=tmp_path / "mine", shared_homes=(client_config.home,))
    assert Client(mine).get(others.spec.key).path.is_relative_to(tmp_path / "mine")


def test_it_is_listed_verified_and_repaired_as_a_damaged_one(
    others: Live, live: Live, client_config: Config
) -> None:
    assert "damaged" in dscache(client_config, "cache", "ls").out
    ran = dscache(client_config, "cache", "verify")
    assert ran.code == 8
    assert live.spec.key in ran.out
    assert dscache(client_config, "cache", "verify", "--repair").code == 0
    ran = dscache(client_config, "get", others.spec.key)
    assert contents(Path(ran.out.strip())) == random_files([4000, 7000], seed=1)
    assert dscache(client_config, "cache", "verify").code == 0


def test_datasets_of_equal_bytes_are_not_mixed_up(
    live: Live, store: Store, client_config: Config
) -> None:
    """Their zips have the same etag, so only the key tells them apart."""
    twin = publish(store, FILES, config={"twin": True})
    assert twin.zip_etag == live.zip_etag
    path = Client(client_config).get(live.spec.key).path
    path.rename(path.with_name(twin.spec.key))
    assert Client(client_config).get(twin.spec.key).key == twin.spec.key


# -- folders on other disks


def test_a_dataset_that_is_a_link_is_not_removed(
    live: Live, client_config: Config, tmp_path: Path
) -> None:
    client = Client(client_config)
    path = client.get(live.spec.key).path
    path.rename(tmp_path / live.spec.key)
    path.symlink_to(tmp_path / live.spec.key)
    for force in ((), ("--force",)):
        ran = dscache(client_config, "cache", "rm", live.spec.key, *force)
        assert (ran.code, "is a link" in ran.err) == (2, True), ran.err
    assert [each.name for each in path.parent.iterdir()] == [live.spec.key]
    assert path.is_symlink() and contents(tmp_path / live.spec.key) == FILES


def test_a_dataset_is_protected_by_whatever_path_it_was_opened(
    live: Live, client_config: Config, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    client_config.home.mkdir(parents=True, exist_ok=True)
    (client_config.home / "datasets").symlink_to(disk)
    path = Path(dscache(client_config, "get", live.spec.key).out.strip())
    dataset = Dataset(path.resolve())
    assert dataset.path.parent == disk
    client = Client(client_config)
    with pytest.raises(UsageError, match="in use"):
        client.cache.remove(live.spec.key)
    assert [entry.in_use for entry in client.cache.entries()] == [True]
    assert not client.cache.prune(keep_days=0).removed
    assert contents(dataset.path) == FILES
    copied = pickle.loads(pickle.dumps(dataset))
    dataset.close()
    with pytest.raises(UsageError, match="in use"):
        client.cache.remove(live.spec.key)
    copied.close()
    assert client.cache.remove(live.spec.key) > 0
    assert not list(disk.iterdir())


def test_a_dataset_that_is_open_by_another_path_is_not_replaced(
    live: Live, store: Store, client_config: Config, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    client_config.home.mkdir(parents=True, exist_ok=True)
    (client_config.home / "datasets").symlink_to(disk)
    path = Path(dscache(client_config, "get", live.spec.key).out.strip())
    dataset = Dataset(path.resolve())
    publish(store, random_files([300], seed=2), generation=1)
    (path / "manifest.json").write_bytes(b"{}")
    ran = dscache(client_config, "get", live.spec.key)
    assert (ran.code, "reads the local copy" in ran.err) == (2, True), ran.err
    dataset.close()
    # nothing proves that the other files were the dataset's: `cache rm` is for the user to say
    ran = dscache(client_config, "get", live.spec.key)
    assert (ran.code, "move them elsewhere" in ran.err) == (2, True), ran.err
