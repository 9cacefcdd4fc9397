"""Many who wait at once, on the real server: what they cost it, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from dscache import api
from dscache.client import Client
from dscache.config import Config
from dscache.devstack.localstore import LocalStore
from dscache.errors import WaitTimeout
from dscache.protocol import layout, manifests, subscriptions, wait
from dscache.protocol.manifests import Live
from dscache.spec import Spec
from dscache.store.s3 import Store
from support import datasets
from support.countingproxy import CountingProxy
from support.datasets import MEMBER
from support.running import wait_until

PHOTOS = Spec.of("photos", "1.0.0", {})  # what support.datasets publishes
WAITERS = 150
PATIENCE_S = 60.0


def spec(number: int) -> Spec:
    return Spec.of("photos", "1.0.0", {"number": number})


def publish(store: Store, asked: Spec) -> None:
    """The ready marker of a dataset whose zip nobody will read."""
    name = layout.archive(asked.key, 0)
    live = Live(
        spec=asked, generation=0, zip_key=name, zip_etag="e", zip_size=1, seal="", members=[MEMBER]
    )
    store.put(layout.ready(asked.key), manifests.encode(live))


class Waiters:
    """Threads of this process that wait, each for a dataset of its own, until they are given up."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count)
        self.count = count
        self.given_up = threading.Event()
        self.keys: list[Future[str]] = []

    def start(self, config: Config) -> None:
        client = Client(config)
        self.keys = [
            self._pool.submit(client.wait, spec(number).members, given_up=self.given_up)
            for number in range(self.count)
        ]

    def done(self) -> int:
        return sum(key.done() for key in self.keys)

    def stop(self) -> None:
        self.given_up.set()
        self._pool.shutdown()


@pytest.fixture
def waiters() -> Iterator[Waiters]:
    waiters = Waiters(WAITERS)
    yield waiters
    waiters.stop()


def requests(store: Store) -> int:
    return len(list(store.entries(layout.REQUESTS)))


def test_many_keys_in_one_process_share_one_stream_and_are_all_told(
    waiters: Waiters, client_config: Config, store: Store
) -> None:
    with CountingProxy(client_config.endpoint) as proxy:
        waiters.start(client_config._replace(endpoint=proxy.url))
        wait_until(lambda: requests(store) == WAITERS, "all have asked")
        wait_until(lambda: any(asked.listens for asked in proxy.asked), "they listen")
        for number in range(WAITERS):
            publish(store, spec(number))
        found = [key.result(PATIENCE_S) for key in waiters.keys]
    assert found == [spec(number).key for number in range(WAITERS)]
    assert sum(asked.listens for asked in proxy.asked) == 1


class TestLostEvents:
    """The server drops events while its pings arrive, so the client does not know that it is deaf.

    The build takes 2 s. At the worst a client looks just before its end, and again after half as
    long as it has waited then, or after three seconds.
    """

    BUILD_S = 2.0
    LATE_S = 5.0

    @pytest.fixture
    def deaf(self, client_config: Config) -> Iterator[Config]:
        with CountingProxy(client_config.endpoint, loses_events=True) as proxy:
            yield client_config._replace(endpoint=proxy.url)
            assert any(asked.listens for asked in proxy.asked)

    def late_s(self, call: Callable[[], object], store: Store, files: dict[str, bytes]) -> float:
        """Publish a dataset while `call` waits for it; when the call ended after that."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(call)
            time.sleep(self.BUILD_S)
            assert not done.done()
            datasets.publish(store, files)
            published = time.monotonic()
            done.result(2 * PATIENCE_S)
        return time.monotonic() - published

    def test_a_get_of_a_short_build_ends_soon(
        self, deaf: Config, store: Store, files: dict[str, bytes]
    ) -> None:
        client = Client(deaf)
        assert self.late_s(lambda: client.get(PHOTOS), store, files) < self.LATE_S
        assert client.get(PHOTOS, build=False).files()

    def test_so_does_waiting_for_the_topic_of_another_process(
        self, deaf: Config, client_config: Config, store: Store, files: dict[str, bytes]
    ) -> None:
        topic = Client(client_config).request(PHOTOS)
        assert self.late_s(lambda: Client(deaf).wait(topic), store, files) < self.LATE_S


def test_awaiting_more_topics_than_asyncio_has_threads(
    monkeypatch: pytest.MonkeyPatch, client_config: Config, store: Store, tmp_path: Path
) -> None:
    for name in ("endpoint", "bucket", "access_key", "secret_key"):
        monkeypatch.setenv(f"DSCACHE_{name.upper()}", getattr(client_config, name))
    monkeypatch.setenv("DSCACHE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("DSCACHE_HOME", str(tmp_path / "home"))
    count = 60
    topics = [api.request_dataset("photos", "1.0.0", {"number": n}) for n in range(count)]

    async def last_first() -> list[str]:
        waiting = [asyncio.ensure_future(api.wait_for_completion(topic)) for topic in topics]
        publish(store, spec(count - 1))
        await asyncio.wait_for(waiting[-1], PATIENCE_S)
        assert sum(each.done() for each in waiting) == 1
        for number in range(count - 1):
            publish(store, spec(number))
        return list(await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S))

    assert asyncio.run(last_first()) == [spec(number).key for number in range(count)]


def test_a_restarted_store_is_not_overrun_and_nobody_is_forgotten(
    waiters: Waiters, new_store: Callable[..., LocalStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times as fast as it is in life; benchmarks/notify.py has a thousand at full length."""
    monkeypatch.setattr(subscriptions, "RETURN_S", (0.0, 1.6))
    monkeypatch.setattr(wait, "RETURN_S", (2.0, 8.0))
    server = new_store()
    store = Store(server.config)
    with CountingProxy(server.endpoint) as proxy:
        waiters.start(server.client_config._replace(endpoint=proxy.url))
        wait_until(lambda: requests(store) == WAITERS, "all have asked")
        wait_until(lambda: any(asked.listens for asked in proxy.asked), "they listen")
        wait_until(lambda: looks(proxy) >= 2 * WAITERS, "they have looked, most of them twice")
        server.kill()
        gone = time.monotonic()
        server.start()
        came_back = time.monotonic()
        publish(store, spec(0))  # whether or not somebody listens already
        wait_until(lambda: listens_since(proxy, gone), "they listen again", 12.0)
        assert waiters.keys[0].result(15.0) == spec(0).key
        assert proxy.busiest_second(came_back) < WAITERS  # 150 × 3 looks over 6 s: 75 on average
        assert waiters.done() == 1
        waiters.stop()
        with pytest.raises(WaitTimeout):
            waiters.keys[1].result(PATIENCE_S)


def listens_since(proxy: CountingProxy, since: float) -> bool:
    return any(asked.listens and asked.at >= since for asked in proxy.asked)


def looks(proxy: CountingProxy) -> int:
    """Each look that finds no answer ends with the HEAD of the request."""
    return sum(asked.method == "HEAD" for asked in proxy.asked)
