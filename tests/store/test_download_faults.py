"""Downloads over a network that breaks in every way we know."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.download.download import download
from dscache.download.fetch import MAX_FAILURES
from dscache.download.options import TransferOptions
from dscache.errors import AccessDenied, IntegrityError, StoreError, StoreUnreachable
from dscache.store.s3 import Store
from support.datasets import contents, publish, random_files, url_of
from support.downloading import hidden, interrupt
from support.faultproxy import Answer, Cut, FaultProxy, Flip, Stall
from support.running import wait_until

pytestmark = pytest.mark.store

MIB = 1 << 20
BUSY = Answer(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")


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
