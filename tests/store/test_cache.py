"""The local cache filled from a real store: one download per machine, verify and repair."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dscache import cli
from dscache.cache.cache import Cache
from dscache.cache.eviction import DAY_S
from dscache.client import Client
from dscache.config import Config
from dscache.download.options import TransferOptions
from dscache.errors import DatasetReplaced, NoSpace, UsageError
from dscache.folder.selection import Selection
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Live
from dscache.reading.dataset import Dataset
from dscache.store.s3 import Store
from support.datasets import contents, example_files, publish, random_files
from support.faultproxy import Cut, FaultProxy, Stall

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
def proxy(client_config: Config) -> Iterator[FaultProxy]:
    with FaultProxy(client_config.require_endpoint()) as proxy:
        yield proxy


@pytest.fixture
def via(client_config: Config, proxy: FaultProxy) -> Store:
    return Store(client_config._replace(endpoint=proxy.url))


@pytest.fixture
def cache(client_config: Config) -> Cache:
    return Cache(client_config.home)


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


def url_of(store: Store, live: Live) -> Callable[[], str]:
    return lambda: store.presign_get(live.zip_key)


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


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
        with pytest.raises(NoSpace, match=r"1024\.0 PiB and a reserve of 16\.0 MiB are needed, "):
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


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


class TestMend:
    """A dataset whose description is damaged."""

    FILES = random_files([1000, MIB, MIB, MIB])

    @pytest.fixture
    def live(self, store: Store) -> Live:
        return publish(store, self.FILES)

    @pytest.fixture(
        params=[
            ("manifest.json", None),
            ("manifest.json", b""),
            ("manifest.json", b"{}"),
            ("partial.json", b""),
            ("partial.json", b'{"splits": {"train": 7}}'),
        ]
    )
    def damaged(
        self, request: pytest.FixtureRequest, live: Live, store: Store, cache: Cache
    ) -> Path:
        """Three of four shards, of which one is wrong; and a wrong description."""
        path = cache.fetch(live, url_of(store, live), selection=Selection.of(shards=[0, 1, 2]))
        name, content = request.param
        (path / name).unlink()
        if content is not None:
            (path / name).write_bytes(content)
        with (path / live.members[0].name).open("r+b") as file:
            file.write(b"damage")
        (path / "stray").touch()
        return path

    def test_fetching_keeps_what_fits(
        self, live: Live, damaged: Path, cache: Cache, via: Store, proxy: FaultProxy
    ) -> None:
        path = cache.fetch(live, url_of(via, live))
        assert path == damaged
        assert contents(path) == self.FILES
        assert proxy.requested_bytes < MIB + 3000
        assert cache.verify(live.spec.key) == []

    def test_repair_keeps_what_is_there(
        self, live: Live, damaged: Path, cache: Cache, via: Store, proxy: FaultProxy
    ) -> None:
        (found,) = cache.verify(live.spec.key)
        assert found.is_description
        url = url_of(via, live)
        assert cache.repair(live.spec.key, lambda _: url(), ready=lambda: live) == [found]
        assert sorted(contents(damaged)) == sorted(self.FILES)[:3]
        assert proxy.requested_bytes < 3000
        assert cache.verify(live.spec.key) == []
        assert cache.find(live.spec.key, selection=Selection.of(shards=[0, 1, 2])) == damaged
        assert cache.find(live.spec.key) is None

    def test_who_reads_it_keeps_his_files(
        self, live: Live, damaged: Path, cache: Cache, store: Store
    ) -> None:
        before = contents(damaged)
        with cache.hold(live.spec.key), pytest.raises(UsageError, match="reads the local copy"):
            cache.fetch(live, url_of(store, live))
        assert contents(damaged) == before


class TestRepair:
    def test_only_the_damaged_files_come_again(
        self, store: Store, via: Store, proxy: FaultProxy, cache: Cache
    ) -> None:
        files = random_files([5 * MIB, 6 * MIB, 7 * MIB, 0])
        live = publish(store, files)
        path = cache.fetch(live, url_of(via, live))
        assert cache.verify(live.spec.key) == []
        names = [member.name for member in live.members]
        with (path / names[0]).open("r+b") as file:
            file.write(b"damage")
        (path / names[1]).unlink()
        with (path / names[3]).open("ab") as file:
            file.write(b"more")
        found = cache.verify(live.spec.key)
        assert [damage.name for damage in found] == [names[0], names[1], names[3]]
        assert [damage.problem for damage in found] == [
            "its bytes differ from the ready marker",
            "missing",
            "4 bytes instead of 0",
        ]
        proxy.ranges.clear()
        assert cache.repair(live.spec.key, lambda marker: via.presign_get(marker.zip_key)) == found
        assert proxy.requested_bytes == 11 * MIB
        assert contents(path) == files
        assert cache.verify(live.spec.key) == []

    def test_of_a_partial_copy_only_what_it_holds_counts(
        self, store: Store, client_store: Store, cache: Cache, tmp_path: Path
    ) -> None:
        live = publish(store, example_files(tmp_path, {"train": [3], "val": [2]}))
        cache.fetch(live, url_of(client_store, live), selection=Selection.of(splits=["val"]))
        assert cache.verify(live.spec.key) == []

    def test_a_retired_dataset_cannot_be_repaired(
        self, store: Store, client_store: Store, cache: Cache
    ) -> None:
        live = publish(store, random_files([1000]))
        path = cache.fetch(live, url_of(client_store, live))
        (path / live.members[0].name).unlink()
        store.delete(live.zip_key)
        with pytest.raises(DatasetReplaced):
            cache.repair(live.spec.key, lambda marker: client_store.presign_get(marker.zip_key))


@pytest.fixture
def run(
    client_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `dscache cache …` with the client's configuration: exit code, output, messages."""
    for name in ("endpoint", "bucket", "access_key", "secret_key", "home"):
        monkeypatch.setenv(f"DSCACHE_{name.upper()}", str(getattr(client_config, name)))
    monkeypatch.setenv("DSCACHE_CONFIG", str(client_config.home / "none.toml"))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dscache", "cache", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return code, output.out, output.err

    return run


Run = Callable[..., tuple[int, str, str]]


class TestCommands:
    def test_ls(self, store: Store, client_store: Store, cache: Cache, run: Run) -> None:
        code, output, messages = run("ls")
        assert (code, output) == (0, "") and "no datasets" in messages
        live = publish(store, random_files([1 << 20]))
        cache.fetch(live, url_of(client_store, live), asked=ASKED)
        cache.pin(ASKED)
        code, output, messages = run("ls")
        assert code == 0 and output.split() == [
            live.spec.key, "1.0", "MiB", "just", "now", "pinned",
        ]  # fmt: skip
        assert "1 dataset, 1.0 MiB" in messages
        code, output, _ = run("ls", "--json")
        (listed,) = json.loads(output)
        assert listed["key"] == live.spec.key and listed["aliases"] == [ASKED]
        assert listed["pinned"] is True and listed["in_use"] is False

    def test_verify_and_repair(
        self, store: Store, client_store: Store, cache: Cache, run: Run
    ) -> None:
        live = publish(store, random_files([1000, 1000]))
        path = cache.fetch(live, url_of(client_store, live))
        key = live.spec.key
        assert run("verify")[:2] == (0, f"{key}: ok\n")
        name = live.members[1].name
        (path / name).write_bytes(b"short")
        code, output, messages = run("verify", key)
        assert code == 8
        assert output == f"{key}: damaged\n  {name}: 5 bytes instead of 1000\n"
        assert "--repair" in messages
        code, output, _ = run("verify", key, "--json")
        problem = {"name": name, "problem": "5 bytes instead of 1000"}
        assert code == 8
        assert json.loads(output) == {
            "datasets": {key: [problem]}, "repaired": False, "refused": {},
        }  # fmt: skip
        code, output, _ = run("verify", key, "--repair")
        assert code == 0 and output.endswith("(repaired)\n")
        assert run("verify", key)[0] == 0

    def test_verify_goes_on_after_a_damaged_manifest(
        self, store: Store, client_store: Store, cache: Cache, run: Run
    ) -> None:
        lives = [publish(store, random_files([1000]), config={"n": n}) for n in range(3)]
        keys = [live.spec.key for live in lives]
        paths = [cache.fetch(live, url_of(client_store, live)) for live in lives]
        (paths[0] / "manifest.json").write_bytes(b"")
        (paths[1] / "manifest.json").unlink()
        code, output, _ = run("verify", *keys)
        assert code == 8
        assert output == (
            f"{keys[0]}: damaged\n  manifest.json: damaged\n"
            f"{keys[1]}: damaged\n  manifest.json: missing\n{keys[2]}: ok\n"
        )
        assert "damaged" in run("ls")[1]
        code, output, _ = run("verify", "--repair")
        assert code == 0 and output.count("(repaired)") == 2
        assert run("verify")[0] == 0

    def test_repair_goes_on_after_a_retired_dataset(
        self, store: Store, client_store: Store, cache: Cache, run: Run
    ) -> None:
        lives = [publish(store, random_files([1000]), config={"n": n}) for n in range(3)]
        gone, lost, good = keys = [live.spec.key for live in lives]
        for live in lives:
            path = cache.fetch(live, url_of(client_store, live))
            (path / live.members[0].name).unlink()
        (cache.path / "datasets" / lost / "manifest.json").unlink()
        store.delete(lives[0].zip_key)
        store.delete(layout.ready(lost))
        code, output, messages = run("verify", "--repair", *keys, "--json")
        refused = json.loads(output)["refused"]
        assert code == 8 and list(refused) == [gone, lost]
        assert all(f"`dscache cache rm {key}`, then get it" in refused[key] for key in refused)
        code, output, messages = run("verify", "--repair", *keys)
        assert code == 8 and f"{good}: ok" in output and f"cache rm {gone}`" in messages
        assert run("rm", gone, lost)[0] == 0

    def test_pin_rm_unpin(self, store: Store, client_store: Store, cache: Cache, run: Run) -> None:
        live = publish(store, random_files([1000]))
        cache.fetch(live, url_of(client_store, live))
        key = live.spec.key
        assert run("pin", key, "--json")[:2] == (0, json.dumps({"pinned": [key]}, indent=2) + "\n")
        code, _, messages = run("rm", key)
        assert code == 2 and "is pinned" in messages
        assert run("unpin", key)[0] == 0
        code, output, _ = run("rm", key, ASKED, "--json")
        assert code == 5 and list(json.loads(output)["removed"]) == [key]
        code, _, messages = run("rm", key)
        assert code == 5 and "cache ls" in messages

    def test_prune(self, store: Store, client_store: Store, cache: Cache, run: Run) -> None:
        live = publish(store, random_files([1000]))
        cache.fetch(live, url_of(client_store, live))
        code, _, messages = run("prune")
        assert code == 2 and "--max-size" in messages
        code, _, messages = run("prune", "--max-size", "many")
        assert code == 2 and "not a size" in messages
        code, output, _ = run("prune", "--max-size", "0")
        assert (code, output) == (0, "")  # handed out today
        code, output, _ = run("prune", "--keep-days", "0", "--json")
        assert json.loads(output) == {"removed": [], "freed_bytes": 0, "dry_run": False}
        assert cache.find(live.spec.key) is not None
