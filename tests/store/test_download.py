"""Downloads from a real store: whole datasets, parts of them, and what replaced them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.errors import DatasetReplaced, UsageError
from dscache.folder.selection import Selection
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store
from support.datasets import contents, publish, random_files, url_of
from support.downloading import hidden, interrupt
from support.faultproxy import Cut, FaultProxy, Throttle

pytestmark = pytest.mark.store
MIB = 1 << 20


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
    assert hidden(tmp_path) == []


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
