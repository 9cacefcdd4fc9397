"""Downloads from a real store, over a network that breaks in every way we know."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.download.download import download
from dscache.download.fetch import MAX_FAILURES
from dscache.download.options import TransferOptions
from dscache.errors import (
    AccessDenied,
    DatasetReplaced,
    IntegrityError,
    NoSpace,
    StoreError,
    StoreUnreachable,
    UsageError,
)
from dscache.folder.selection import Selection
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store
from support.datasets import contents, example_files, publish, random_files
from support.downloading import Downloading
from support.faultproxy import Answer, Cut, FaultProxy, Flip, Stall, Throttle

pytestmark = pytest.mark.store

MIB = 1 << 20
RECORDS = {"train": [3, 4, 5], "val": [2]}
BUSY = Answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def proxy(client_config: Config) -> Iterator[FaultProxy]:
    with FaultProxy(client_config.require_endpoint()) as proxy:
        yield proxy


@pytest.fixture
def via(client_config: Config, proxy: FaultProxy) -> Store:
    """The bucket as the client user sees it through the proxy."""
    return Store(client_config._replace(endpoint=proxy.url))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A small dataset with two splits."""
    return example_files(tmp_path, RECORDS)


def url_of(store: Store, live: Live) -> Callable[[], str]:
    return lambda: store.presign_get(live.zip_key)


def test_another_machine_was_quicker(store: Store, files: dict[str, bytes], tmp_path: Path) -> None:
    """Where locks do not reach other machines, both download; the first one's stays in place."""
    live = publish(store, files)
    destination, theirs = tmp_path / "ds", tmp_path / "theirs"
    download(live, theirs, url_of(store, live))
    inode = theirs.stat().st_ino

    def progress(done: int, total: int) -> None:
        if done == total and theirs.exists():
            theirs.rename(destination)

    download(live, destination, url_of(store, live), options=TransferOptions(progress=progress))
    assert destination.stat().st_ino == inode
    assert contents(destination) == files
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("late", [False, True])
def test_another_machine_had_fetched_other_shards(
    store: Store, tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both partial copies are one afterwards, also when theirs appears at the last moment."""
    files = random_files([1000] * 4)
    live = publish(store, files)
    destination, theirs = tmp_path / "ds", tmp_path / "theirs"
    download(live, theirs, url_of(store, live), selection=Selection.of(shards=[0, 1]))
    rename = Path.rename

    def appear() -> None:
        if theirs.exists():
            rename(theirs, destination)

    def appear_then_rename(self: Path, target: Path) -> Path:
        appear()
        return rename(self, target)

    def progress(done: int, total: int) -> None:
        if done == total and not late:
            appear()

    monkeypatch.setattr(Path, "rename", appear_then_rename)
    download(
        live,
        destination,
        url_of(store, live),
        selection=Selection.of(shards=[1, 2]),
        options=TransferOptions(progress=progress),
    )
    assert set(contents(destination)) == {live.members[index].name for index in (0, 1, 2)}
    partial = json.loads((destination / "partial.json").read_text())
    assert partial["splits"]["train"] == {"shards": 4, "held": [0, 1, 2]}
    assert hidden(tmp_path) == []
    download(live, destination, url_of(store, live))
    assert contents(destination) == files


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


class TestWhole:
    def test_the_folder_holds_the_files_and_the_marker(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        to = tmp_path / "to" / "ds"
        download(live, to, url_of(client_store, live))
        assert contents(to) == files
        marker = (to / "manifest.json").read_bytes()
        assert manifests.decode(marker, Live, where="here") == live
        assert hidden(to.parent) == [] and hidden(to) == []

    def test_small_neighbours_cost_one_request(
        self, store: Store, via: Store, proxy: FaultProxy, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        download(live, tmp_path / "ds", url_of(via, live))
        assert len(proxy.ranges) == 1
        assert proxy.requested_bytes <= live.zip_size

    def test_ranges_share_connections(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([5 * MIB] * 6)
        live = publish(store, files)
        download(live, tmp_path / "ds", url_of(via, live), options=TransferOptions(parallel=2))
        assert len(proxy.ranges) == 6
        assert proxy.connections == 2
        assert contents(tmp_path / "ds") == files

    def test_far_ones_get_company_at_once(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        live = publish(store, random_files([5 * MIB] * 8))
        proxy.delay_s = 0.1
        download(live, tmp_path / "ds", url_of(via, live))
        assert proxy.connections >= 6  # of 8 that are wanted: the first ones may be quicker
        assert contents(tmp_path / "ds") == random_files([5 * MIB] * 8)

    def test_slow_connections_get_company(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([5 * MIB] * 8)
        live = publish(store, files)
        proxy.always = Throttle(3 * MIB)
        download(live, tmp_path / "ds", url_of(via, live))
        assert 3 <= proxy.connections <= 16  # some once more: a stretch that was cut ends early
        assert contents(tmp_path / "ds") == files

    def test_empty_members_need_no_range(
        self, store: Store, client_store: Store, tmp_path: Path
    ) -> None:
        files = random_files([0, 10, 0])
        live = publish(store, files)
        download(live, tmp_path / "ds", url_of(client_store, live))
        assert contents(tmp_path / "ds") == files

    def test_progress_ends_with_everything(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        seen: list[tuple[int, int]] = []
        download(
            live,
            tmp_path / "ds",
            url_of(client_store, live),
            options=TransferOptions(progress=lambda done, total: seen.append((done, total))),
        )
        size = sum(map(len, files.values()))
        assert seen[-1] == (size, size)
        assert {total for _, total in seen} == {size}

    def test_a_folder_that_is_no_dataset_is_left_alone(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter1").write_text("It was a dark and stormy night")
        with pytest.raises(UsageError, match="is not a dataset"):
            download(live, tmp_path / "thesis", url_of(client_store, live))
        assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1"]

    def test_an_empty_folder_is_used(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        (tmp_path / "ds").mkdir()
        download(live, tmp_path / "ds", url_of(client_store, live))
        assert contents(tmp_path / "ds") == files


class TestSubset:
    def test_only_the_split_is_fetched_and_the_rest_later(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([MIB] * 3) | {
            "photos-val.tfrecord-00000-of-00001": b"v" * 1000,
            "features.json": b"{}",
        }
        live = publish(store, files)
        to = tmp_path / "ds"
        download(live, to, url_of(via, live), selection=Selection.of(splits=["val"]))
        assert set(contents(to)) == {"photos-val.tfrecord-00000-of-00001", "features.json"}
        assert proxy.requested_bytes < 2000
        partial = json.loads((to / "partial.json").read_text())
        assert partial["splits"]["train"] == {"shards": 3, "held": []}
        download(live, to, url_of(via, live), selection=Selection.of(splits=["train"], shards=[1]))
        assert proxy.requested_bytes < MIB + 2000
        download(live, to, url_of(via, live))
        assert contents(to) == files
        assert not (to / "partial.json").exists()
        assert proxy.requested_bytes < 3 * MIB + 4000

    def test_an_unknown_split_costs_no_request(
        self, store: Store, via: Store, proxy: FaultProxy, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        with pytest.raises(UsageError, match=r"no split 'test'.*train, val"):
            download(
                live, tmp_path / "ds", url_of(via, live), selection=Selection.of(splits=["test"])
            )
        assert proxy.ranges == []

    def test_an_interrupted_whole_download_survives_getting_a_part(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([3 * MIB] * 2) | {"photos-val.tfrecord-00000-of-00001": b"v"}
        live = publish(store, files)
        proxy.always = Cut(2 * MIB)
        with pytest.raises(KeyboardInterrupt):
            download(
                live,
                tmp_path / "ds",
                url_of(via, live),
                options=TransferOptions(parallel=1, sleep=interrupt),
            )
        proxy.always = None
        download(live, tmp_path / "ds", url_of(via, live), selection=Selection.of(splits=["val"]))
        assert len(hidden(tmp_path)) == 1
        proxy.ranges.clear()
        download(live, tmp_path / "ds", url_of(via, live))
        assert contents(tmp_path / "ds") == files
        assert proxy.requested_bytes < 5 * MIB
        assert hidden(tmp_path) == []


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


class TestBrokenNetwork:
    def test_a_cut_range_goes_on_where_it_broke(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([2 * MIB])
        live = publish(store, files)
        proxy.faults += [Cut(MIB + 1000), Cut(MIB // 2 + 7)]  # in the middle of a buffer
        sleeps: list[float] = []
        download(
            live,
            tmp_path / "ds",
            url_of(via, live),
            options=TransferOptions(sleep=sleeps.append, jitter=lambda: 1.0),
        )
        start = live.members[0].offset
        end = start + 2 * MIB - 1
        second, third = start + MIB + 1000, start + MIB * 3 // 2 + 1007
        assert proxy.ranges == [(start, end), (second, end), (third, end)]
        assert sleeps == [0.25, 0.25]  # each attempt brought something: the row begins anew
        assert contents(tmp_path / "ds") == files

    def test_a_stalled_range_is_asked_for_again(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([MIB])
        live = publish(store, files)
        proxy.faults += [Stall(MIB // 2)]
        began = time.monotonic()
        download(
            live,
            tmp_path / "ds",
            url_of(via, live),
            options=TransferOptions(stall_s=0.3, sleep=lambda _: None),
        )
        assert time.monotonic() - began < 5
        assert len(proxy.ranges) == 2
        assert proxy.ranges[1][0] == proxy.ranges[0][0] + MIB // 2
        assert contents(tmp_path / "ds") == files

    def test_a_busy_server_is_asked_again_later_and_later(
        self, store: Store, via: Store, proxy: FaultProxy, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        proxy.faults += [BUSY, BUSY, BUSY]
        sleeps: list[float] = []
        download(
            live,
            tmp_path / "ds",
            url_of(via, live),
            options=TransferOptions(sleep=sleeps.append, jitter=lambda: 0.0),
        )
        assert sleeps == [0.125, 0.25, 0.5]
        assert contents(tmp_path / "ds") == files

    def test_it_gives_up_after_the_same_failures_in_a_row(
        self, store: Store, via: Store, proxy: FaultProxy, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        proxy.always = BUSY
        sleeps: list[float] = []
        with pytest.raises(StoreUnreachable, match=r"9 consecutive attempts.*503.*resumes"):
            download(
                live,
                tmp_path / "ds",
                url_of(via, live),
                options=TransferOptions(sleep=sleeps.append, jitter=lambda: 1.0),
            )
        assert sleeps == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        assert len(sleeps) == MAX_FAILURES
        assert not (tmp_path / "ds").exists()

    def test_nobody_listens(
        self, store: Store, client_config: Config, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        with FaultProxy(client_config.require_endpoint()) as gone:
            dead = Store(client_config._replace(endpoint=gone.url))
        with pytest.raises(StoreUnreachable, match=gone.url.removeprefix("http://")):
            download(
                live,
                tmp_path / "ds",
                url_of(dead, live),
                options=TransferOptions(sleep=lambda _: None),
            )

    def test_a_proxy_that_ignores_ranges_is_found_out(
        self, store: Store, via: Store, proxy: FaultProxy, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        proxy.always = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        with pytest.raises(StoreError, match="expected a partial response"):
            download(live, tmp_path / "ds", url_of(via, live))
        assert len(proxy.ranges) == 1

    def test_another_range_than_asked_for_is_refused(
        self, store: Store, via: Store, proxy: FaultProxy, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        head = b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/5\r\n\r\n"
        proxy.always = Answer(head + b"hello")
        with pytest.raises(StoreError, match="bytes 0-4/5"):
            download(live, tmp_path / "ds", url_of(via, live))

    def test_an_interrupt_ends_it_at_once_and_keeps_what_came(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([MIB, MIB])
        live = publish(store, files)
        proxy.always = Stall(MIB // 2)

        def progress(done: int, _: int) -> None:
            if done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            download(
                live,
                tmp_path / "ds",
                url_of(via, live),
                options=TransferOptions(progress=progress, parallel=2),
            )
        assert not [t for t in threading.enumerate() if t.name.startswith("dscache-range")]
        assert not (tmp_path / "ds").exists()
        kept = sum(path.stat().st_size for path in (tmp_path / hidden(tmp_path)[0]).iterdir())
        assert 0 < kept < 2 * MIB


class TestUrls:
    def test_an_expired_url_is_renewed(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        old = client_store.presign_get(live.zip_key, expires_s=1)
        wait_until(lambda: status_of(old) == 403, "the URL expires")
        urls = [old, client_store.presign_get(live.zip_key)]
        download(live, tmp_path / "ds", lambda: urls.pop(0))
        assert urls == []
        assert contents(tmp_path / "ds") == files

    def test_urls_that_are_always_refused_are_an_error_without_signature(
        self, store: Store, client_config: Config, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        stranger = Store(client_config._replace(secret_key="x" * 20))
        asked = []

        def url() -> str:
            asked.append(1)
            return stranger.presign_get(live.zip_key)

        with pytest.raises(AccessDenied, match=r"SignatureDoesNotMatch.*credentials") as caught:
            download(live, tmp_path / "ds", url)
        assert "X-Amz-Signature" not in str(caught.value)
        assert len(asked) == 2

    def test_a_missing_bucket_is_no_replaced_dataset(
        self, store: Store, root_config: Config, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        elsewhere = Store(root_config._replace(bucket="t-never-made"))
        with pytest.raises(StoreError, match="bucket does not exist"):
            download(live, tmp_path / "ds", url_of(elsewhere, live))


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class TestWrongBytes:
    def test_they_are_fetched_again_once(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([5 * MIB, 5 * MIB])
        live = publish(store, files)
        proxy.faults += [Flip(MIB)]
        download(live, tmp_path / "ds", url_of(via, live), options=TransferOptions(parallel=1))
        first, second = ((m.offset, m.offset + m.size - 1) for m in live.members)
        assert proxy.ranges == [first, first, second]
        assert contents(tmp_path / "ds") == files

    def test_twice_is_an_error_and_nothing_appears(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        live = publish(store, random_files([MIB]))
        proxy.always = Flip(7)
        with pytest.raises(IntegrityError, match=r"00000-of-00001.*twice"):
            download(live, tmp_path / "ds", url_of(via, live))
        assert len(proxy.ranges) == 2
        assert not (tmp_path / "ds").exists()

    def test_one_of_many_small_ones(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([1000] * 50)
        live = publish(store, files)
        victim = live.members[20]
        proxy.faults += [Flip(victim.offset - live.members[0].offset + 3)]
        download(live, tmp_path / "ds", url_of(via, live))
        assert proxy.ranges[1:] == [(victim.offset, victim.offset + victim.size - 1)]
        assert contents(tmp_path / "ds") == files

    def test_a_tampered_prefix_is_not_trusted(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([3 * MIB])
        live = publish(store, files)
        proxy.always = Cut(2 * MIB)
        with pytest.raises(KeyboardInterrupt):
            download(
                live, tmp_path / "ds", url_of(via, live), options=TransferOptions(sleep=interrupt)
            )
        (part,) = (tmp_path / hidden(tmp_path)[0]).iterdir()
        with part.open("r+b") as file:
            file.seek(5)
            file.write(b"?")
        proxy.always = None
        download(live, tmp_path / "ds", url_of(via, live))
        assert contents(tmp_path / "ds") == files


class TestReplaced:
    def test_another_zip_under_the_name(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        store.put(live.zip_key, b"something else")
        with pytest.raises(DatasetReplaced, match=r"PreconditionFailed.*get it again"):
            download(live, tmp_path / "ds", url_of(client_store, live))

    def test_a_retired_zip(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        store.delete(live.zip_key)
        with pytest.raises(DatasetReplaced, match="NoSuchKey"):
            download(live, tmp_path / "ds", url_of(client_store, live))
        assert not (tmp_path / "ds").exists()

    def test_parts_of_another_etag_are_thrown_away(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        old = publish(store, random_files([2 * MIB]))
        proxy.faults += [Cut(MIB)]
        with pytest.raises(KeyboardInterrupt):
            download(
                old, tmp_path / "ds", url_of(via, old), options=TransferOptions(sleep=interrupt)
            )
        assert [old.zip_etag in name for name in hidden(tmp_path)] == [True]
        files = random_files([2 * MIB], seed=1)
        new = publish(store, files, generation=1)
        download(new, tmp_path / "ds", url_of(via, new))
        assert contents(tmp_path / "ds") == files
        assert hidden(tmp_path) == []

    def test_a_copy_of_an_older_zip_is_replaced_as_a_whole(
        self, store: Store, client_store: Store, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        old = publish(store, random_files([1000]))
        download(old, tmp_path / "ds", url_of(client_store, old))
        new = publish(store, files, generation=1)
        download(new, tmp_path / "ds", url_of(client_store, new))
        assert contents(tmp_path / "ds") == files
        assert hidden(tmp_path) == []


class TestShared:
    """A large member whose connections are slow is fetched over several of them."""

    SIZE = 24 * MIB

    @pytest.fixture
    def live(self, store: Store, proxy: FaultProxy) -> Live:
        proxy.always = Throttle(6 * MIB)
        return publish(store, random_files([self.SIZE]))

    def test_by_several_connections(
        self, live: Live, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        began = time.monotonic()
        download(live, tmp_path / "ds", url_of(via, live))
        assert contents(tmp_path / "ds") == random_files([self.SIZE])
        assert 4 <= proxy.connections <= 16
        assert time.monotonic() - began < 3  # one connection needs 4 s

    def test_one_range_is_one_connection(
        self, live: Live, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        download(live, tmp_path / "ds", url_of(via, live), options=TransferOptions(parallel=1))
        assert proxy.ranges == [(live.members[0].offset, live.members[0].offset + self.SIZE - 1)]

    def test_a_wrong_byte_in_the_half_that_was_taken(
        self, live: Live, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        proxy.faults += [Throttle(6 * MIB), Flip(1000)]
        download(live, tmp_path / "ds", url_of(via, live), options=TransferOptions(parallel=2))
        assert contents(tmp_path / "ds") == random_files([self.SIZE])
        begin = live.members[0].offset
        assert [first for first, _ in proxy.ranges].count(begin) == 2  # from its beginning again

    def test_an_interrupted_one_goes_on_in_all_places(
        self, live: Live, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        def progress(done: int, _: int) -> None:
            if done >= 8 * MIB:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            download(
                live,
                tmp_path / "ds",
                url_of(via, live),
                options=TransferOptions(parallel=4, progress=progress),
            )
        self.completed(live, via, proxy, tmp_path / "ds")

    def test_a_killed_one_goes_on_in_all_places(
        self, live: Live, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        to = tmp_path / "cache" / "ds"
        to.parent.mkdir()
        with Downloading(live, via.presign_get(live.zip_key), to, parallel=4) as downloading:
            next(done for done in downloading.done() if done >= 8 * MIB)
        assert not to.exists()
        self.completed(live, via, proxy, to)

    def completed(self, live: Live, via: Store, proxy: FaultProxy, to: Path) -> None:
        """Get the rest over one connection: four gaps, each by itself, with the block begun."""
        proxy.always = None
        proxy.ranges.clear()
        download(live, to, url_of(via, live), options=TransferOptions(parallel=1))
        assert contents(to) == random_files([self.SIZE])
        assert len(proxy.ranges) == 4
        assert proxy.requested_bytes <= self.SIZE - 8 * MIB + 4 * 4096
        assert hidden(to.parent) == []


class TestFullDisk:
    def test_it_is_seen_before_the_first_request(
        self, store: Store, via: Store, proxy: FaultProxy, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        live = publish(store, files)
        live.members[0].size = 1 << 60
        live.zip_size = 1 << 61
        with pytest.raises(
            NoSpace, match=r"1024\.0 PiB and a reserve .* are needed, .* are free.*prune"
        ):
            download(live, tmp_path / "ds", url_of(via, live))
        assert proxy.ranges == []
        assert hidden(tmp_path) == []

    def test_a_limit_met_on_the_way_keeps_what_came(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([4 * MIB])
        live = publish(store, files)
        limited = start(live, via, tmp_path / "ds", before=f"limit(resource.RLIMIT_FSIZE, {MIB})")
        _, errors = limited.communicate(timeout=60)
        assert limited.returncode != 0
        assert "NoSpace" in errors and "1.0 MiB of 4.0 MiB" in errors
        assert not (tmp_path / "ds").exists()
        proxy.ranges.clear()
        download(live, tmp_path / "ds", url_of(via, live))
        assert contents(tmp_path / "ds") == files
        assert proxy.requested_bytes == 3 * MIB


DOWNLOAD = """
import resource, sys
from pathlib import Path
from dscache.protocol import manifests
from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.protocol.manifests import Live

def limit(what, soft):
    resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))

live = manifests.decode(Path(sys.argv[1]).read_bytes(), Live, where="test")
{before}
options = TransferOptions(parallel={parallel})
download(live, Path(sys.argv[2]), lambda: sys.argv[3], options=options)
"""


def start(
    live: Live, store: Store, to: Path, *, before: str = "", parallel: int | None = None
) -> subprocess.Popen[str]:
    """Download in a process of its own."""
    marker = to.parent / "marker.json"
    marker.write_bytes(manifests.encode(live))
    code = DOWNLOAD.format(before=before, parallel=parallel)
    argv = [sys.executable, "-c", code, str(marker), str(to), store.presign_get(live.zip_key)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class TestProcesses:
    def test_a_killed_download_is_resumed(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        files = random_files([5 * MIB, 5 * MIB])
        live = publish(store, files)
        proxy.always = Stall(4 * MIB)
        to = tmp_path / "cache" / "ds"
        to.parent.mkdir()
        process = start(live, via, to, parallel=2)

        def kept() -> int:
            return sum(part.stat().st_size for part in to.parent.glob(".ds.*.tmp/*.part"))

        wait_until(lambda: kept() >= 7 * MIB, "most of it has come")
        assert not to.exists()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = kept()
        proxy.always = None
        proxy.ranges.clear()
        download(live, to, url_of(via, live))
        assert contents(to) == files
        assert proxy.requested_bytes == 10 * MIB - before
        assert hidden(to.parent) == []

    def test_two_downloads_to_one_place_do_not_mix(
        self, store: Store, via: Store, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        live = publish(store, random_files([MIB]))
        proxy.always = Stall(100)
        process = start(live, via, tmp_path / "ds")
        try:
            wait_until(lambda: proxy.ranges, "the other one is downloading")
            with pytest.raises(UsageError, match="another process is downloading"):
                download(live, tmp_path / "ds", url_of(via, live))
        finally:
            process.kill()
            process.communicate()

    def test_memory_does_not_grow_with_the_dataset(
        self, store: Store, client_store: Store, tmp_path: Path
    ) -> None:
        live = publish(store, random_files([24 * MIB] * 4))
        url = client_store.presign_get(live.zip_key)
        with Downloading(live, url, tmp_path / "ds", parallel=8) as downloading:
            assert downloading.grown() < 24 * MIB
        assert len(contents(tmp_path / "ds")) == 4
