"""Damaged datasets in the local cache: found, mended and repaired from a real store."""

from __future__ import annotations

from pathlib import Path

import pytest

from dscache.cache.cache import Cache
from dscache.errors import DatasetReplaced, UsageError
from dscache.folder.selection import Selection
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store
from support.datasets import contents, example_files, publish, random_files, url_of
from support.faultproxy import FaultProxy

pytestmark = pytest.mark.store

MIB = 1 << 20


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
