"""What `-v` reports about a download: connections, retries, damaged members, resuming."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store
from support.datasets import contents, publish, random_files
from support.faultproxy import Answer, Cut, FaultProxy, Flip, Throttle

pytestmark = pytest.mark.store

MIB = 1 << 20
EXPIRED = Answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
Get = Callable[..., str]


@pytest.fixture
def proxy(client_config: Config) -> Iterator[FaultProxy]:
    with FaultProxy(client_config.require_endpoint()) as proxy:
        yield proxy


@pytest.fixture
def get(
    client_config: Config, proxy: FaultProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Get:
    """Download through the proxy and return the log, which never contains a URL."""
    via = Store(client_config._replace(endpoint=proxy.url))
    caplog.set_level(logging.DEBUG, "dscache.download")

    def get(live: Live, files: dict[str, bytes], **options: object) -> str:
        transfer = TransferOptions(**options)  # type: ignore[arg-type]
        try:
            download(live, tmp_path / "ds", lambda: via.presign_get(live.zip_key), options=transfer)
            assert contents(tmp_path / "ds") == files
        finally:
            assert "://" not in caplog.text
            assert "X-Amz-" not in caplog.text
        return caplog.text

    return get


def test_a_retried_range(store: Store, proxy: FaultProxy, get: Get) -> None:
    files = random_files([2 * MIB])
    live = publish(store, files)
    proxy.faults += [Cut(MIB)]
    log = get(live, files, sleep=lambda _: None, jitter=lambda: 1.0)
    assert f"retrying from byte {live.members[0].offset + MIB} in 0.25 s (failure 1 of 8)" in log


def test_a_damaged_member(store: Store, proxy: FaultProxy, get: Get) -> None:
    files = random_files([MIB])
    live = publish(store, files)
    proxy.faults += [Flip(7)]
    name = live.members[0].name
    assert f"{name} in {live.zip_key}: wrong checksums; fetching it again" in get(live, files)


def test_a_resumed_download(store: Store, proxy: FaultProxy, get: Get) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    files = random_files([3 * MIB])
    live = publish(store, files)
    proxy.faults += [Cut(2 * MIB)]
    with pytest.raises(KeyboardInterrupt):
        get(live, files, sleep=interrupt)
    log = get(live, files)
    assert log.count("resuming in ") == 1
    assert "which holds 2.0 MiB" in log


def test_the_number_of_connections(store: Store, proxy: FaultProxy, get: Get) -> None:
    files = random_files([8 * MIB] * 3)
    live = publish(store, files)
    proxy.always = Throttle(6 * MIB)
    log = get(live, files)
    assert f"{live.zip_key}: fetching 24.0 MiB with up to 2 connections" in log
    adapted = "continuing with 4" in log
    distant = "using 8 connections" in log  # on a busy machine the first response is late
    assert adapted or distant


def test_a_refused_url(store: Store, proxy: FaultProxy, get: Get) -> None:
    files = random_files([MIB])
    proxy.faults += [EXPIRED]
    live = publish(store, files)
    assert f"{live.zip_key}: the URL was refused (403); signing a new one" in get(live, files)
