"""Downloads that end before they are done, and go on where they were."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.errors import NoSpace, UsageError
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store
from support.datasets import contents, publish, random_files, url_of
from support.downloading import Downloading, hidden
from support.faultproxy import FaultProxy, Flip, Stall, Throttle
from support.running import wait_until

pytestmark = pytest.mark.store

MIB = 1 << 20


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
        with pytest.raises(NoSpace, match=r"1024\.0 PiB and a reserve.* are free.*prune"):
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
