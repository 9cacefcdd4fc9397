"""The real store behind Toxiproxy: bad networks that nobody here wrote, for downloads and waiters.

What `support.faultproxy` breaks at an exact byte is tested in test_download.py; this is the check
that its idea of a broken network is not only ours.
"""

from __future__ import annotations

import http.client
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dscache.client import Client
from dscache.config import Config
from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.errors import StoreUnreachable
from dscache.protocol import layout, subscriptions, wait
from dscache.protocol.manifests import Live
from dscache.spec import Spec
from dscache.store import notifications
from dscache.store.notifications import Connected, Created, Listener, Lost, Signal
from dscache.store.s3 import Store
from support.datasets import contents, publish, random_files, url_of
from support.downloading import Downloading
from support.faultproxy import FaultProxy
from support.gotools import ensure_program
from support.running import wait_until
from support.toxiproxy import Proxy, Toxiproxy

pytestmark = pytest.mark.store

MIB = 1 << 20
UNRECORDED_BYTES = MIB  # what a download may have to fetch again: chunks that were on their way
LIMIT_S = 20.0


@pytest.fixture(scope="module")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    binary = ensure_program("toxiproxy", os.environ, print)
    with Toxiproxy(binary, tmp_path_factory.mktemp("toxiproxy") / "log") as server:
        yield server


@pytest.fixture
def proxy(toxiproxy: Toxiproxy, client_config: Config) -> Proxy:
    return toxiproxy.proxy(client_config.require_endpoint())


@pytest.fixture
def via(client_config: Config, proxy: Proxy) -> Store:
    """The bucket as the client user sees it through the proxy."""
    return Store(client_config._replace(endpoint=proxy.url))


@pytest.fixture
def counted(client_config: Config) -> Iterator[FaultProxy]:
    """A good network that counts what is asked for."""
    with FaultProxy(client_config.require_endpoint()) as counted:
        yield counted


def nothing(_: float) -> None:
    """A pause that is none."""


def resume(counted: FaultProxy, client_config: Config, live: Live, to: Path) -> int:
    """Finish a download over the good network; how many bytes it asked for."""
    store = Store(client_config._replace(endpoint=counted.url))
    download(live, to, url_of(store, live))
    return counted.requested_bytes


class TestCutConnections:
    def test_connections_that_end_after_a_while_are_gone_on_with(
        self, store: Store, via: Store, proxy: Proxy, tmp_path: Path
    ) -> None:
        """Whoever began again from the start would never come to the end of a shard."""
        files = random_files([3 * MIB] * 2)
        live = publish(store, files)
        proxy.add("limit_data", bytes=MIB + 1000)
        download(live, tmp_path / "ds", url_of(via, live), options=TransferOptions(sleep=nothing))
        assert contents(tmp_path / "ds") == files
        assert proxy.connections >= 6

    def test_connections_that_are_reset_in_the_middle(
        self, store: Store, via: Store, proxy: Proxy, tmp_path: Path
    ) -> None:
        files = random_files([3 * MIB] * 2)
        live = publish(store, files)
        proxy.add("reset_peer", toxicity=0)  # how they end; the other one says when
        proxy.add("limit_data", bytes=MIB + 1000)
        with pytest.raises(ConnectionResetError):
            read_all(via.presign_get(live.zip_key))
        download(live, tmp_path / "ds", url_of(via, live), options=TransferOptions(sleep=nothing))
        assert contents(tmp_path / "ds") == files
        assert proxy.connections >= 6

    def test_connections_that_are_reset_at_once(
        self, store: Store, via: Store, proxy: Proxy, tmp_path: Path
    ) -> None:
        files = random_files([MIB] * 2)
        live = publish(store, files)
        proxy.add("reset_peer", timeout=0)
        failures = 0

        def sleep(_: float) -> None:
            nonlocal failures
            failures += 1
            if failures == 3:
                proxy.remove("reset_peer")

        download(
            live,
            tmp_path / "ds",
            url_of(via, live),
            options=TransferOptions(sleep=sleep, parallel=1),
        )
        assert failures == 3
        assert contents(tmp_path / "ds") == files

    def test_answers_in_tiny_pieces(
        self, store: Store, via: Store, proxy: Proxy, tmp_path: Path
    ) -> None:
        """Status line, headers and body come in pieces of about 40 bytes."""
        files = random_files([64 << 10] * 2)
        live = publish(store, files)
        proxy.add("slicer", average_size=40, size_variation=20, delay=10)
        download(live, tmp_path / "ds", url_of(via, live), options=TransferOptions(parallel=1))
        assert contents(tmp_path / "ds") == files
        assert proxy.connections == 1


def read_all(url: str) -> None:
    """GET, and read to the end of the body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=LIMIT_S)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        connection.getresponse().read()
    finally:
        connection.close()


class TestSlowLinks:
    def test_a_link_that_goes_silent_is_noticed_in_time(
        self, store: Store, via: Store, proxy: Proxy, tmp_path: Path
    ) -> None:
        files = random_files([4 * MIB] * 2)
        live = publish(store, files)
        proxy.add("bandwidth", rate=3000)
        silent_at: list[float] = []
        noticed_at: list[float] = []

        def progress(done: int, _: int) -> None:
            if done > MIB and not silent_at:
                proxy.add("timeout", timeout=0)
                silent_at.append(time.monotonic())

        def sleep(_: float) -> None:
            noticed_at.append(time.monotonic())
            if len(noticed_at) == 3:  # at least one of them met the silence with a new connection
                proxy.remove("timeout")

        download(
            live,
            tmp_path / "ds",
            url_of(via, live),
            options=TransferOptions(progress=progress, stall_s=1.0, sleep=sleep, parallel=2),
        )
        assert contents(tmp_path / "ds") == files
        assert 0.5 < noticed_at[0] - silent_at[0] < 3.0

    @pytest.mark.parametrize("shards", [8, 1])
    def test_a_long_link_gets_more_connections(
        self, store: Store, via: Store, proxy: Proxy, tmp_path: Path, shards: int
    ) -> None:
        files = random_files([32 * MIB // shards] * shards)
        live = publish(store, files)
        for upstream in (False, True):
            proxy.add("latency", upstream=upstream, latency=20)
        proxy.add("bandwidth", rate=3000)
        download(live, tmp_path / "ds", url_of(via, live))
        assert contents(tmp_path / "ds") == files
        assert 3 <= proxy.connections <= 8


class TestWhatCameIsKept:
    @pytest.mark.parametrize("shards", [4, 1])
    def test_a_killed_download_fetches_only_what_was_missing(
        self,
        store: Store,
        via: Store,
        client_config: Config,
        proxy: Proxy,
        counted: FaultProxy,
        tmp_path: Path,
        shards: int,
    ) -> None:
        files = random_files([16 * MIB // shards] * shards)
        live = publish(store, files)
        proxy.add("bandwidth", rate=4000)
        to = tmp_path / "ds"
        with Downloading(live, via.presign_get(live.zip_key), to, parallel=4) as killed:
            came = next(done for done in killed.done() if done >= 7 * MIB)
        assert not to.exists()
        assert resume(counted, client_config, live, to) < 16 * MIB - came + UNRECORDED_BYTES
        assert contents(to) == files

    def test_a_store_that_cannot_be_reached(
        self,
        store: Store,
        via: Store,
        client_config: Config,
        proxy: Proxy,
        counted: FaultProxy,
        tmp_path: Path,
    ) -> None:
        files = random_files([6 * MIB] * 2)
        live = publish(store, files)
        proxy.add("bandwidth", rate=6000)
        to = tmp_path / "ds"
        came = 0

        def progress(done: int, _: int) -> None:
            nonlocal came
            if done >= 4 * MIB and not came:
                proxy.disable()
                came = done

        with pytest.raises(StoreUnreachable, match=r"9 consecutive attempts.*refused.*resumes"):
            download(
                live,
                to,
                url_of(via, live),
                options=TransferOptions(progress=progress, sleep=nothing),
            )
        assert not to.exists()
        assert resume(counted, client_config, live, to) < 12 * MIB - came + UNRECORDED_BYTES
        assert contents(to) == files


class Heard:
    """Signals as they come, and a way to wait for one."""

    def __init__(self) -> None:
        self.signals: queue.Queue[Signal] = queue.Queue()

    def until(self, wanted: type[Signal]) -> Signal:
        deadline = time.monotonic() + LIMIT_S
        while True:
            signal = self.signals.get(timeout=max(deadline - time.monotonic(), 0.01))
            if isinstance(signal, wanted):
                return signal


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def listener(via: Store, heard: Heard) -> Iterator[Listener]:
    """A listener behind the proxy that is connected."""
    with Listener(via.config, layout.DATASETS, heard.signals.put) as listener:
        heard.until(Connected)
        yield listener


@pytest.mark.usefixtures("listener")
class TestNotifications:
    def test_a_reset_stream_is_opened_again(self, store: Store, proxy: Proxy, heard: Heard) -> None:
        proxy.disable()
        heard.until(Lost)
        proxy.add("reset_peer", timeout=0)
        proxy.enable()
        heard.until(Lost)  # accepted, and reset instead of an answer
        proxy.remove("reset_peer")
        heard.until(Connected)
        store.put("datasets/x", b"1")
        assert heard.until(Created) == Created("datasets/x")

    def test_a_stream_that_is_cut_within_a_line(
        self, store: Store, proxy: Proxy, heard: Heard
    ) -> None:
        proxy.add("limit_data", bytes=100)  # an event has about a thousand
        store.put("datasets/halved", b"1")
        heard.until(Lost)
        proxy.remove("limit_data")
        heard.until(Connected)
        store.put("datasets/x", b"1")
        assert heard.until(Created) == Created("datasets/x")

    def test_events_in_tiny_pieces(self, store: Store, proxy: Proxy, heard: Heard) -> None:
        proxy.add("slicer", average_size=7, size_variation=3, delay=10)
        names = [f"datasets/ä b+c {number}" for number in range(20)]
        for name in names:
            store.put(name, b"1", metadata={"progress": f"of {name[-2:]}"})
        created = [heard.until(Created) for _ in names]
        assert created == [Created(name, {"progress": f"of {name[-2:]}"}) for name in names]
        assert proxy.connections == 1


def test_a_silent_stream_is_noticed_within_the_read_timeout(
    store: Store, via: Store, proxy: Proxy, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "READ_TIMEOUT_S", 2.0)
    with Listener(via.config, layout.DATASETS, heard.signals.put):
        heard.until(Connected)
        proxy.add("timeout", timeout=0)
        silent_at = time.monotonic()
        lost = heard.until(Lost)
        assert time.monotonic() - silent_at < 2.0 + 1.0
        assert isinstance(lost, Lost) and "timed out" in lost.reason
        heard.until(Lost)  # the next one met the silence before its headers came
        proxy.remove("timeout")
        heard.until(Connected)
        store.put("datasets/x", b"1")
        assert heard.until(Created) == Created("datasets/x")


class TestWaiters:
    """In a hurry: they come back twenty times as fast as in life."""

    @pytest.fixture(autouse=True)
    def in_a_hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(subscriptions, "RETURN_S", (0.0, 0.4))
        monkeypatch.setattr(wait, "RETURN_S", (0.5, 2.0))
        monkeypatch.setattr(notifications, "READ_TIMEOUT_S", 2.0)

    @pytest.fixture
    def waiting(self, via: Store) -> Iterator[Callable[[], str]]:
        """Somebody who waits for SPEC and is connected; called, it gives the answer."""
        given_up = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            key = pool.submit(Client(via.config).wait, SPEC.members, given_up=given_up)
            wait_until(lambda: listens(via.config), "it listens", LIMIT_S)
            yield lambda: key.result(LIMIT_S)
            given_up.set()

    def test_what_became_ready_while_the_connection_was_cut(
        self, store: Store, proxy: Proxy, via: Store, waiting: Callable[[], str]
    ) -> None:
        proxy.disable()
        wait_until(lambda: not listens(via.config), "it has noticed", LIMIT_S)
        publish(store, random_files([1]))
        proxy.enable()
        assert waiting() == SPEC.key

    def test_what_becomes_ready_after_a_cut_is_heard(
        self,
        store: Store,
        proxy: Proxy,
        via: Store,
        waiting: Callable[[], str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(wait, "RETURN_S", (3 * LIMIT_S, 3 * LIMIT_S))  # looking is too late
        proxy.disable()
        wait_until(lambda: not listens(via.config), "it has noticed", LIMIT_S)
        proxy.enable()
        wait_until(lambda: listens(via.config), "it listens again", LIMIT_S)
        publish(store, random_files([1]))
        assert waiting() == SPEC.key

    def test_what_became_ready_while_the_link_was_silent(
        self, store: Store, proxy: Proxy, via: Store, waiting: Callable[[], str]
    ) -> None:
        proxy.add("timeout", timeout=0)
        publish(store, random_files([1]))
        wait_until(lambda: not listens(via.config), "it has noticed", 4.0)
        proxy.remove("timeout")
        assert waiting() == SPEC.key


SPEC = Spec.of("photos", "1.0.0", {})  # what support.datasets publishes


def listens(config: Config) -> bool:
    """Whether this process has a stream that is connected."""
    channels = subscriptions.subscriptions_of(config)._channels
    return any(isinstance(channel._state, Connected) for channel in channels)
