"""What leaves the local cache, and what is spared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dscache.cache.cache import Cache
from dscache.cache.eviction import DAY_S, CachedDataset, datasets_to_remove, reason_to_keep
from dscache.cache.home import Home
from dscache.errors import NotCached, UsageError
from dscache.folder.directory import Directory, discard, require_own
from support.caches import KEY, KEYS, NOW, OTHER, SHARD, put


class TestRemove:
    def test_it_and_its_aliases_go(self, cache: Cache, home: Home) -> None:
        put(home, KEY, size=1234)
        home.add_alias(OTHER, KEY)
        assert cache.remove(OTHER) == 1234
        assert list(home.datasets.iterdir()) == []
        assert cache.find(KEY) is None

    def test_what_is_not_there(self, cache: Cache) -> None:
        with pytest.raises(NotCached, match="cache ls"):
            cache.remove(KEY)

    def test_a_pin_holds_until_it_is_forced(self, cache: Cache, home: Home) -> None:
        put(home, KEY)
        cache.pin(KEY)
        with pytest.raises(UsageError, match=r"is pinned.*--force"):
            cache.remove(KEY)
        cache.remove(KEY, force=True)
        put(home, KEY)
        assert not home.marks.is_pinned(KEY)

    def test_a_reader_holds_until_it_is_forced(self, cache: Cache, home: Home) -> None:
        put(home, KEY)
        with cache.hold(KEY):
            with pytest.raises(UsageError, match="in use"):
                cache.remove(KEY)
            assert cache.find(KEY) is not None
            cache.remove(KEY, force=True)
        assert cache.find(KEY) is None

    def test_a_download_holds_even_when_forced(self, cache: Cache, home: Home) -> None:
        put(home, KEY)
        with home.changing(KEY), pytest.raises(UsageError, match="downloading"):
            cache.remove(KEY, force=True)
        assert cache.find(KEY) is not None


@pytest.fixture
def reader(home: Home) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a process that has the dataset open."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        code = (
            "import sys\nfrom dscache.reading.dataset import Dataset\n"
            f"Dataset({str(home.datasets / KEY)!r})\nprint('open', flush=True)\nsys.stdin.read()\n"
        )
        argv = [sys.executable, "-c", code]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class TestPrune:
    def test_a_reading_process_is_spared_until_it_is_killed(
        self, cache: Cache, home: Home, reader: Callable[[], subprocess.Popen[str]]
    ) -> None:
        put(home, KEY, used_at=NOW - 40 * DAY_S)
        process = reader()
        assert [entry.in_use for entry in cache.entries()] == [True]
        assert cache.prune(keep_days=1).removed == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [entry.key for entry in cache.prune(keep_days=1).removed] == [KEY]
        assert cache.find(KEY) is None

    def test_to_a_size(self, cache: Cache, home: Home) -> None:
        for number, key in enumerate(KEYS):
            put(home, key, size=1000, used_at=NOW - (10 - number) * DAY_S)
        pruned = cache.prune(max_bytes=2500)
        assert [entry.key for entry in pruned.removed] == list(KEYS[:2])
        assert pruned.freed_bytes == 2000
        assert [entry.key for entry in cache.entries()] == [KEYS[3], KEYS[2]]

    def test_a_dry_run_removes_nothing(self, cache: Cache, home: Home) -> None:
        put(home, KEY, used_at=NOW - 40 * DAY_S)
        assert len(cache.prune(keep_days=1, dry_run=True).removed) == 1
        assert len(cache.entries()) == 1

    def test_a_hit_between_decision_and_removal_wins(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = put(home, KEY, used_at=NOW - 40 * DAY_S)
        rename = Path.rename

        def find_then_rename(self: Path, target: Path) -> Path:
            if self == folder:  # the last moment at which somebody can still find it
                assert cache.find(KEY) == folder
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", find_then_rename)
        assert cache.prune(keep_days=1).removed == []
        assert cache.find(KEY) == folder
        assert (folder / "x.tfrecord").exists()

    def test_two_at_once_do_not_take_away_what_is_given_back(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = put(home, KEY, used_at=NOW - 40 * DAY_S)
        os.utime(folder, (NOW - 40 * DAY_S,) * 2)
        rename = Path.rename

        def find_rename_and_prune(self: Path, target: Path) -> Path:
            if self == folder:
                assert cache.find(KEY) == folder
            done = rename(self, target)
            if self == folder:
                assert cache.prune(keep_days=1).removed == []  # another one, right then
            return done

        monkeypatch.setattr(Path, "rename", find_rename_and_prune)
        assert cache.prune(keep_days=1).removed == []
        assert cache.find(KEY) == folder

    def test_two_remove_the_same_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in "abc":
            (folder / name).touch()
        unlink = os.unlink
        removed: set[str] = set()

        def both(path: str, **more: Any) -> None:
            removed.add(Path(path).name)
            unlink(path, **more)
            unlink(path, **more)  # raises, as for the slower one of the two

        with monkeypatch.context() as patch, Directory(folder) as opened:
            patch.setattr(os, "unlink", both)
            discard(opened, folder, "abc")
        assert removed == {"a", "b", "c"}
        assert not folder.exists()

    def test_a_link_in_its_place_at_the_last_moment_is_left_alone(
        self, cache: Cache, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = put(home, KEY, used_at=NOW - 40 * DAY_S)
        theirs = tmp_path / "their"
        theirs.mkdir()
        (theirs / "x.tfrecord").write_bytes(b"mine")
        rename = Path.rename

        def swap_then_rename(self: Path, target: Path) -> Path:
            if self == folder and not folder.is_symlink():
                rename(folder, tmp_path / "moved")
                folder.symlink_to(theirs)
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", swap_then_rename)
        assert cache.prune(keep_days=1).removed == []
        assert [path.name for path in theirs.iterdir()] == ["x.tfrecord"]
        assert folder.readlink() == theirs

    def test_files_that_are_added_at_the_last_moment_bring_it_back(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = put(home, KEY, used_at=NOW - 40 * DAY_S)
        rename = Path.rename

        def add_then_rename(self: Path, target: Path) -> Path:
            if self == folder:
                (folder / "notes.txt").touch()
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", add_then_rename)
        assert cache.prune(keep_days=1).removed == []
        assert {path.name for path in folder.iterdir()} == {
            "manifest.json", "notes.txt", "x.tfrecord",
        }  # fmt: skip

    def test_unfinished_downloads_go_after_a_week(self, cache: Cache, home: Home) -> None:
        home.prepare()
        for age_days, name in ((8, f".{KEY}.etag.tmp"), (6, f".{OTHER}.etag.tmp")):
            folder = home.datasets / name
            folder.mkdir()
            (folder / f"{SHARD}.part").write_bytes(bytes(500))
            os.utime(folder, (NOW - age_days * DAY_S,) * 2)
        assert cache.prune(keep_days=1, dry_run=True).freed_bytes == 500
        assert len(list(home.datasets.iterdir())) == 2
        assert cache.prune(keep_days=1).freed_bytes == 500
        assert [path.name for path in home.datasets.iterdir()] == [f".{OTHER}.etag.tmp"]

    def test_an_unfinished_download_with_other_files_stays(self, cache: Cache, home: Home) -> None:
        home.prepare()
        folder = home.datasets / f".{KEY}.etag.tmp"
        folder.mkdir()
        for name in (f"{SHARD}.part", "mine.txt"):
            (folder / name).write_bytes(bytes(500))
        os.utime(folder, (NOW - 9 * DAY_S,) * 2)
        assert cache.prune(keep_days=1).freed_bytes == 0
        assert len(list(folder.iterdir())) == 2

    def test_unfinished_downloads_count(self, cache: Cache, home: Home) -> None:
        put(home, KEY, size=1000, used_at=NOW - 10 * DAY_S)
        folder = home.datasets / f".{OTHER}.etag.tmp"
        folder.mkdir()
        (folder / "x.part").write_bytes(bytes(500))
        os.utime(folder, (NOW, NOW))
        assert cache.prune(max_bytes=1500).removed == []
        assert [entry.key for entry in cache.prune(max_bytes=1499).removed] == [KEY]


def entry(
    key: str, size: int, days: float, *, pinned: bool = False, in_use: bool = False
) -> CachedDataset:
    return CachedDataset(key, f"/{key}", size, NOW - days * DAY_S, pinned, in_use)


class TestVictims:
    ENTRIES = (
        entry("new", 100, 0.5),
        entry("pinned", 100, 90, pinned=True),
        entry("read", 100, 80, in_use=True),
        entry("old", 100, 70),
        entry("older", 100, 75),
        entry("recent", 100, 2),
        entry("damaged", 0, 60)._replace(damaged=True),
        entry("with notes", 0, 60)._replace(foreign=("notes.txt",)),
    )

    @pytest.mark.parametrize(
        ("max_bytes", "keep_days", "expected"),
        [
            (None, None, []),
            (None, 30, ["older", "old"]),
            (None, 72, ["older"]),
            (None, 0, ["older", "old", "recent"]),
            (600, None, []),
            (599, None, ["older"]),
            (400, None, ["older", "old"]),
            (0, None, ["older", "old", "recent"]),
            (550, 72, ["older"]),
            (450, 72, ["older", "old"]),
        ],
    )
    def test_table(
        self, max_bytes: int | None, keep_days: float | None, expected: list[str]
    ) -> None:
        chosen = datasets_to_remove(self.ENTRIES, NOW, max_bytes=max_bytes, keep_days=keep_days)
        assert [each.key for each in chosen] == expected

    def test_reason_to_keep(self) -> None:
        reasons = {each.key: reason_to_keep(each, NOW) for each in self.ENTRIES}
        assert reasons == {
            "new": "handed out in the last 24 hours",
            "pinned": "pinned",
            "read": "in use",
            "damaged": "damaged",
            "with notes": "holds other files",
            "old": "",
            "older": "",
            "recent": "",
        }


def test_a_shard_of_the_user_s_own_is_foreign_although_the_manifest_is_damaged(
    tmp_path: Path,
) -> None:
    """A repair knows the members; what only looks like a shard may be somebody's subset."""
    for name in (SHARD, "my-subset.tfrecord-00000-of-00001"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "manifest.json").write_bytes(b"{")
    with (
        Directory(tmp_path) as folder,
        pytest.raises(UsageError, match="my-subset"),
    ):
        require_own(folder, {SHARD})
