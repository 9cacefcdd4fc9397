"""The local cache filled from a real store: one download per machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dscache.cache.cache import Cache
from dscache.cache.eviction import DAY_S
from dscache.client import Client
from dscache.config import Config
from dscache.download.options import TransferOptions
from dscache.errors import NoSpace, UsageError
from dscache.folder.selection import Selection
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.reading.dataset import Dataset
from dscache.store.s3 import Store
from support.datasets import contents, example_files, publish, random_files, url_of
from support.downloading import interrupt
from support.faultproxy import Cut, FaultProxy, Stall
from support.running import wait_until

pytestmark = pytest.mark.store
MIB = 1 << 20
ASKED = "photos_1.0.0_" + "a" * 32
FETCH = """
import sys
from pathlib import Path
from dscache.protocol import manifests
from dscache.cache.cache import Cache
from dscache.protocol.manifests import Live

live = manifests.decode(Path(sys.argv[2]).read_bytes(), Live, where="test")
def waiting():
    print("waiting", flush=True)
print(Cache(Path(sys.argv[1])).fetch(live, lambda: sys.argv[3], waiting=waiting))
"""


@pytest.fixture
def fetching(
    cache: Cache, via: Store, tmp_path: Path
) -> Iterator[Callable[[Live], subprocess.Popen[str]]]:
    """Start a process that fetches a dataset through the proxy."""
    started: list[subprocess.Popen[str]] = []

    def start(live: Live) -> subprocess.Popen[str]:
        marker = tmp_path / "marker.json"
        marker.write_bytes(manifests.encode(live))
        url = via.presign_get(live.zip_key)
        argv = [sys.executable, "-c", FETCH, str(cache.path), str(marker), url]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class TestFetch:
    def test_a_miss_becomes_a_hit(
        self, store: Store, via: Store, proxy: FaultProxy, cache: Cache, tmp_path: Path
    ) -> None:
        files = example_files(tmp_path, {"train": [3]})
        live = publish(store, files)
        path = cache.fetch(live, url_of(via, live), asked=ASKED)
        assert contents(path) == files
        assert cache.find(live.spec.key) == cache.find(ASKED) == path
        assert (cache.path / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172")
        assert cache.fetch(live, url_of(via, live)) == path
        assert len(proxy.ranges) == 1

    def test_a_cache_of_others_that_has_the_resolved_key_is_used(
        self, store: Store, via: Store, proxy: FaultProxy, cache: Cache, tmp_path: Path
    ) -> None:
        live = publish(store, random_files([1000]))
        shared = Cache(tmp_path / "shared").fetch(live, url_of(via, live))
        mine = Cache(cache.path, shared=[tmp_path / "shared"])
        proxy.ranges.clear()
        assert mine.fetch(live, url_of(via, live), asked=ASKED) == shared
        assert proxy.ranges == []
        assert not cache.path.exists()

    def test_getting_what_is_removed_at_the_same_time(
        self, store: Store, client_config: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live = publish(store, random_files([1000]))
        dataset, removed = Cache.dataset, 0

        def remove_first(self: Cache, path: Path) -> Dataset:
            nonlocal removed
            removed += 1
            if removed <= 2:
                self.remove(path.name)
            return dataset(self, path)

        monkeypatch.setattr(Cache, "dataset", remove_first)
        client = Client(client_config)
        spec = {"dataset_name": "photos", "handler_version": "1.0.0", "dataset_config": {}}
        assert client.get(spec).path == client.cache.find(live.spec.key)
        assert removed == 3

    def test_a_partial_copy_is_completed(
        self, store: Store, via: Store, proxy: FaultProxy, cache: Cache, tmp_path: Path
    ) -> None:
        files = example_files(tmp_path, {"train": [3], "val": [2]})
        live = publish(store, files)
        path = cache.fetch(live, url_of(via, live), selection=Selection.of(splits=["val"]))
        assert cache.find(live.spec.key) is None
        assert cache.find(live.spec.key, selection=Selection.of(splits=["val"])) == path
        assert cache.fetch(live, url_of(via, live)) == path
        assert contents(path) == files
        assert cache.find(live.spec.key) == path

    def test_what_was_least_recently_used_makes_room(
        self, store: Store, client_store: Store, client_config: Config
    ) -> None:
        now = [1_900_000_000.0]
        cache = Cache(client_config.home, limit_bytes=5 * MIB, clock=lambda: now[0])
        lives = [
            publish(store, random_files([2 * MIB], seed=number), config={"number": number})
            for number in range(4)
        ]
        notes: list[str] = []

        def fetch(number: int) -> Path:
            live = lives[number]
            return cache.fetch(live, url_of(client_store, live), note=notes.append)

        def here() -> list[int]:
            return [number for number in range(4) if cache.has(lives[number].spec.key)]

        fetch(0)
        now[0] += 100
        fetch(1)
        now[0] += 2 * DAY_S
        assert notes == []
        cache.pin(lives[0].spec.key)
        fetch(2)
        assert here() == [0, 2]  # 0 is older, but pinned
        (note,) = notes
        assert note == f"removed {lives[1].spec.key} (2.0 MiB) to make room (cache_limit)"
        fetch(3)  # and 2 was handed out just now
        assert here() == [0, 2, 3]
        assert "will hold 6.0 MiB, more than its cache_limit of 5.0 MiB" in notes[-1]

    @pytest.mark.parametrize("resumed", [False, True])
    def test_nothing_is_removed_for_what_can_never_fit(
        self, store: Store, via: Store, proxy: FaultProxy, client_config: Config, resumed: bool
    ) -> None:
        now = [1_900_000_000.0]
        cache = Cache(client_config.home, limit_bytes=5 * MIB, clock=lambda: now[0])
        small = publish(store, random_files([2 * MIB]), config={"number": 0})
        large = publish(store, random_files([3 * MIB, 3 * MIB]), config={"number": 1})
        cache.fetch(small, url_of(via, small))
        now[0] += 2 * DAY_S
        notes: list[str] = []
        if resumed:
            proxy.faults += [Cut(2 * MIB), Cut(2 * MIB)]
            with pytest.raises(KeyboardInterrupt):
                cache.fetch(
                    large, url_of(via, large), options=TransferOptions(parallel=1, sleep=interrupt)
                )
        cache.fetch(large, url_of(via, large), note=notes.append)
        assert cache.has(small.spec.key) and cache.has(large.spec.key)
        (note,) = notes
        assert note.startswith("the dataset (6.0 MiB) is larger than the cache_limit of 5.0 MiB: ")

    def test_nothing_is_removed_when_the_disk_is_too_small(
        self, store: Store, client_store: Store, client_config: Config
    ) -> None:
        now = [1_900_000_000.0]
        cache = Cache(client_config.home, limit_bytes=1 << 60, clock=lambda: now[0])
        small = publish(store, random_files([2 * MIB]), config={"number": 0})
        large = publish(store, random_files([MIB]), config={"number": 1})
        cache.fetch(small, url_of(client_store, small))
        now[0] += 2 * DAY_S
        large.members[0].size = 1 << 60
        large.zip_size = 1 << 61
        with pytest.raises(NoSpace, match=r"1024\.0 PiB and a reserve of 16\.0 MiB are needed"):
            cache.fetch(large, url_of(client_store, large))
        assert cache.has(small.spec.key)

    def test_a_completed_copy_needs_room_for_the_rest_only(
        self, store: Store, client_store: Store, client_config: Config
    ) -> None:
        files = random_files([2 * MIB]) | {"photos-val.tfrecord-00000-of-00001": b"v" * MIB}
        live = publish(store, files)
        cache = Cache(client_config.home, limit_bytes=4 * MIB)
        notes: list[str] = []
        cache.fetch(
            live,
            url_of(client_store, live),
            selection=Selection.of(splits=["train"]),
            note=notes.append,
        )
        cache.fetch(live, url_of(client_store, live), note=notes.append)
        assert notes == []

    def test_a_copy_that_is_read_is_not_replaced(
        self, store: Store, via: Store, proxy: FaultProxy, cache: Cache
    ) -> None:
        live = publish(store, random_files([1000] * 4))
        key = live.spec.key
        path = cache.fetch(live, url_of(via, live), selection=Selection.of(shards=[0, 1]))
        before = contents(path)
        again = publish(store, random_files([1001] * 4, seed=1), generation=1)
        proxy.ranges.clear()
        code = (
            "import sys; from dscache.reading.dataset import Dataset; "
            "Dataset(sys.argv[1]); print(1); sys.stdin.read()"
        )
        argv = [sys.executable, "-uc", code, str(path)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None and other.stdout.readline() == b"1\n"
            with pytest.raises(UsageError, match=rf"{key}: process {other.pid} reads.*wait"):
                cache.fetch(again, url_of(via, again), selection=Selection.of(shards=[2, 3]))
        mine = Dataset(path)
        with pytest.raises(UsageError, match=r"close its Dataset objects"):
            cache.fetch(again, url_of(via, again), selection=Selection.of(shards=[2, 3]))
        assert contents(path) == before
        assert proxy.ranges == []
        mine.close()
        assert (
            len(
                contents(
                    cache.fetch(again, url_of(via, again), selection=Selection.of(shards=[2, 3]))
                )
            )
            == 2
        )

    def test_who_begins_to_read_during_the_download_keeps_his_copy(
        self, store: Store, client_store: Store, cache: Cache
    ) -> None:
        live = publish(store, random_files([1000] * 2))
        path = cache.fetch(live, url_of(client_store, live), selection=Selection.of(shards=[0]))
        before = contents(path)
        again = publish(store, random_files([1001] * 2, seed=1), generation=1)
        opened: list[Dataset] = []

        def progress(done: int, total: int) -> None:
            if not opened:
                opened.append(Dataset(path))

        with pytest.raises(UsageError, match="reads the local copy"):
            cache.fetch(
                again, url_of(client_store, again), options=TransferOptions(progress=progress)
            )
        assert contents(path) == before
        opened[0].close()
        path = cache.fetch(again, url_of(client_store, again))
        assert contents(path) == random_files([1001] * 2, seed=1)

    def test_eight_processes_are_one_download(
        self,
        store: Store,
        proxy: FaultProxy,
        cache: Cache,
        fetching: Callable[[Live], subprocess.Popen[str]],
    ) -> None:
        files = random_files([5 * MIB] * 4)
        live = publish(store, files)
        proxy.faults += [Cut(MIB)]  # the download takes long enough for the others to come
        processes = [fetching(live) for _ in range(8)]
        outputs = [process.communicate(timeout=60)[0].split() for process in processes]
        assert {process.returncode for process in processes} == {0}
        assert len({output[-1] for output in outputs}) == 1
        assert contents(Path(outputs[0][-1])) == files
        assert proxy.requested_bytes == 20 * MIB + 4 * MIB  # the cut one was asked for again

    def test_the_next_in_line_goes_on_at_once_when_the_first_is_killed(
        self,
        store: Store,
        proxy: FaultProxy,
        cache: Cache,
        fetching: Callable[[Live], subprocess.Popen[str]],
    ) -> None:
        files = random_files([4 * MIB])
        live = publish(store, files)
        proxy.faults += [Stall(3 * MIB)]
        first = fetching(live)
        parts = cache.path / "datasets"
        wait_until(
            lambda: sum(p.stat().st_size for p in parts.glob(".*.tmp/*.part")) == 3 * MIB,
            "three quarters have come",
        )
        second = fetching(live)
        assert second.stdout is not None and second.stdout.readline() == "waiting\n"
        first.send_signal(signal.SIGKILL)
        output, _ = second.communicate(timeout=30)
        assert contents(Path(output.strip())) == files
        assert [last + 1 - first for first, last in proxy.ranges] == [4 * MIB, MIB]

    def test_threads_of_one_process_are_one_download(
        self, store: Store, via: Store, proxy: FaultProxy, cache: Cache
    ) -> None:
        live = publish(store, random_files([MIB]))
        threads = [
            threading.Thread(target=cache.fetch, args=(live, url_of(via, live))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(proxy.ranges) == 1
        assert cache.find(live.spec.key) is not None
