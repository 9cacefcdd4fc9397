"""The local cache, without a store: hits, aliases, locks, eviction."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dscache import files
from dscache.cache.cache import Cache
from dscache.cache.eviction import DAY_S, CachedDataset, datasets_to_remove, reason_to_keep
from dscache.cache.home import Home
from dscache.errors import ConfigError, NoSpace, NotCached, UsageError
from dscache.folder.selection import Selection
from dscache.protocol import manifests
from dscache.protocol.manifests import Live, Member
from dscache.reading.dataset import Dataset
from dscache.spec import Spec

NOW = 1_900_000_000.0
KEY = "photos_1.0.0_" + "a" * 32
OTHER = "photos_1.0.0_" + "b" * 32


MARKER = manifests.encode(
    Live(
        spec=Spec.of("photos", "1.0.0", {}),
        generation=0,
        zip_key="z",
        zip_etag="e",
        zip_size=3,
        seal="",
        members=[
            Member(name=f"{split}{index}", offset=0, size=1, crc32=0, digest="0" * 64, split=split)
            for split, index in (("train", 0), ("train", 1), ("val", 0))
        ],
    )
)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path, clock: Clock) -> Home:
    return Home(tmp_path / "home", clock)


@pytest.fixture
def cache(home: Home, clock: Clock) -> Cache:
    return Cache(home.directory, clock=clock)


def put(home: Home, key: str, size: int = 100, used_at: float = NOW) -> Path:
    """A dataset folder as a download leaves it."""
    home.prepare()
    folder = home.datasets / key
    folder.mkdir()
    (folder / "x.tfrecord").write_bytes(bytes(size - 2))
    (folder / "manifest.json").write_bytes(b"{}")
    home.marks.mark_used(key, create=True)
    os.utime(home.directory / "used" / key, (used_at, used_at))
    return folder


class TestFind:
    def test_nothing_there(self, cache: Cache) -> None:
        assert cache.find(KEY) is None
        assert not cache.path.exists()

    def test_a_hit_is_marked_as_used(self, cache: Cache, home: Home, clock: Clock) -> None:
        folder = put(home, KEY, used_at=NOW - 5 * DAY_S)
        assert cache.find(KEY) == folder
        assert home.used_at(KEY) == NOW

    def test_an_alias(self, cache: Cache, home: Home) -> None:
        folder = put(home, KEY)
        home.add_alias(OTHER, KEY)
        assert cache.find(OTHER) == folder
        assert (home.datasets / OTHER).readlink() == Path(KEY)  # relative: the home can be moved
        assert [entry.aliases for entry in cache.entries()] == [(OTHER,)]

    def test_a_dangling_alias_is_a_miss(self, cache: Cache, home: Home) -> None:
        home.prepare()
        home.add_alias(OTHER, KEY)
        assert cache.find(OTHER) is None

    def test_a_folder_without_manifest_is_a_miss(self, cache: Cache, home: Home) -> None:
        (put(home, KEY) / "manifest.json").unlink()
        assert cache.find(KEY) is None

    def test_a_partial_copy_is_a_hit_for_what_it_holds(self, cache: Cache, home: Home) -> None:
        folder = put(home, KEY)
        (folder / "manifest.json").write_bytes(MARKER)
        held = {"train": {"shards": 2, "held": [1]}, "val": {"shards": 1, "held": [0]}}
        (folder / "partial.json").write_text(json.dumps({"schema": 1, "splits": held}))
        assert cache.find(KEY) is None
        assert cache.find(KEY, selection=Selection.of(splits=["val"])) == folder
        assert cache.find(KEY, selection=Selection.of(splits=["train"])) is None
        assert cache.find(KEY, selection=Selection.of(splits=["train"], shards=[1])) == folder
        assert [entry.partial for entry in cache.entries()] == [True]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("partial.json", b""),
            ("partial.json", b"{"),
            ("manifest.json", b""),
            ("manifest.json", b'{"schema'),
            ("manifest.json", bytes(100)),
        ],
    )
    def test_a_damaged_dataset_is_a_miss(
        self, cache: Cache, home: Home, name: str, content: bytes
    ) -> None:
        (put(home, KEY) / name).write_bytes(content)
        assert cache.find(KEY) is None
        assert cache.open(KEY) is None
        assert [entry.key for entry in cache.entries()] == [KEY]

    @pytest.mark.parametrize("partial", [True, False])
    @pytest.mark.parametrize(
        ("splits", "shards", "message"),
        [
            (["nope"], None, "no split 'nope' in photos; available: train, val"),
            (None, [2], "no shard 2; the selected splits have shards 0 to 1"),
            (["val"], [1], "no shard 1"),
        ],
    )
    def test_what_the_dataset_does_not_have(
        self,
        cache: Cache,
        home: Home,
        splits: list[str] | None,
        shards: list[int] | None,
        message: str,
        partial: bool,
    ) -> None:
        folder = put(home, KEY)
        (folder / "manifest.json").write_bytes(MARKER)
        if partial:
            held = {"train": {"shards": 2, "held": [1]}, "val": {"shards": 1, "held": [0]}}
            (folder / "partial.json").write_text(json.dumps({"schema": 1, "splits": held}))
        if partial and splits == ["nope"]:  # the store may have another one by now, ask there
            assert cache.find(KEY, selection=Selection.of(splits=splits)) is None
            return
        with pytest.raises(UsageError, match=message):
            cache.find(KEY, selection=Selection.of(splits=splits, shards=shards))

    def test_one_without_a_manifest_is_listed_and_removed(self, cache: Cache, home: Home) -> None:
        for key in (KEY, OTHER):
            (put(home, key, used_at=NOW - 9 * DAY_S) / "manifest.json").unlink()
        assert [entry.damaged for entry in cache.entries()] == [True, True]
        assert not cache.has(KEY)
        assert cache.verify(KEY) == [("manifest.json", "missing")]
        assert cache.remove(KEY) == 98
        assert cache.prune(max_bytes=0).freed_bytes == 98

    @pytest.mark.parametrize("key", ["", ".", "..", "../x", "/etc", ".hidden", "a/b", "a\0b"])
    def test_what_is_no_key(self, cache: Cache, key: str) -> None:
        with pytest.raises(UsageError, match="is not a key"):
            cache.find(key)

    def test_a_mark_that_was_lost_is_made_again(self, cache: Cache, home: Home) -> None:
        put(home, KEY)
        (home.directory / "used" / KEY).unlink()
        assert cache.find(KEY) is not None
        assert home.used_at(KEY) == NOW

    def test_a_mark_of_another_user_is_set_to_this_moment(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(home, KEY, used_at=0.0)
        utime = os.utime

        def refuse_times(path: Path, times: object = None) -> None:
            if times is not None:
                raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
            utime(path)

        monkeypatch.setattr(os, "utime", refuse_times)
        assert cache.find(KEY) is not None
        assert home.used_at(KEY) > 1e9

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSPC])
    def test_a_mark_that_cannot_be_made_is_done_without(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        folder = put(home, KEY)

        def refuse(path: Path, *_: object) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(os, "utime", refuse)
        assert cache.find(KEY) == folder

    def test_a_mark_in_the_future_becomes_now(self, cache: Cache, home: Home, clock: Clock) -> None:
        put(home, KEY, used_at=NOW + 900 * DAY_S)
        assert [entry.used_at for entry in cache.entries()] == [NOW]
        assert cache.prune(max_bytes=0).removed == []
        clock.now += 2 * DAY_S
        assert [entry.key for entry in cache.prune(max_bytes=0).removed] == [KEY]

    def test_lock_files_are_for_all_whom_the_umask_lets(self, cache: Cache, home: Home) -> None:
        put(home, KEY)
        before = os.umask(0o002)
        try:
            cache.hold(KEY).release()
        finally:
            os.umask(before)
        assert home.readers_lock(KEY).stat().st_mode & 0o777 == 0o664

    def test_a_hit_imports_next_to_nothing(self, home: Home) -> None:
        put(home, KEY)
        code = (
            "import sys, pathlib\n"
            "from dscache.cache.cache import Cache\n"
            "from dscache.reading.dataset import Dataset\n"
            f"path = Cache(pathlib.Path({str(home.directory)!r})).find({KEY!r})\n"
            "assert str(Dataset(path).path) == str(path)\n"
            "print(*sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.split())
        heavy = {
            "boto3", "botocore", "urllib3", "http.client", "ssl", "socket", "msgspec", "numpy",
            "blake3", "filelock", "minio", "tensorflow", "dataclasses", "inspect", "asyncio",
        }  # fmt: skip
        assert loaded & heavy == set()


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


class TestDisk:
    """A home that cannot be used: an error that names it and the remedy."""

    def test_a_home_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "home").touch()
        cache = Cache(tmp_path / "home")
        assert cache.find(KEY) is None
        live = manifests.decode(MARKER, Live, where="here")
        with pytest.raises(ConfigError, match=rf"{tmp_path}/home.*: .*set DSCACHE_HOME"):
            cache.fetch(live, lambda: "")

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
    def test_a_home_that_cannot_be_written_to(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        folder = put(home, KEY)
        os_open = os.open

        def refuse(path: Any, flags: int, *mode: int, **more: Any) -> int:
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                raise OSError(number, os.strerror(number), str(path))
            return os_open(path, flags, *mode, **more)

        def refuse_all(path: Any, *_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(os, "open", refuse)
        for name in ("utime", "mkdir", "rename"):
            monkeypatch.setattr(os, name, refuse_all)
        assert cache.find(KEY) == folder
        live = manifests.decode(MARKER, Live, where="here")
        acts: list[Callable[[], object]] = [
            lambda: cache.remove(KEY),
            lambda: cache.pin(KEY),
            lambda: cache.fetch(live, lambda: ""),
        ]
        for act in acts:
            with pytest.raises(ConfigError, match=rf"{home.directory}.*set DSCACHE_HOME"):
                act()

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk(self, cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        def refuse(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse)
        live = manifests.decode(MARKER, Live, where="here")
        with pytest.raises(NoSpace, match=r"home: .*DSCACHE_HOME"):
            cache.fetch(live, lambda: "")
        assert [path.name for path in cache.path.glob("*TAG*")] == []

    def test_half_a_tag_is_written_anew(self, home: Home) -> None:
        home.prepare()
        tag = home.directory / "CACHEDIR.TAG"
        whole = tag.read_bytes()
        tag.write_bytes(whole[:20])
        home.prepare()
        assert tag.read_bytes() == whole
        tag.write_bytes(whole[:43] + b"\n# mine")
        home.prepare()
        assert tag.read_bytes().endswith(b"mine")

    def test_what_is_not_there_leaves_no_lock_behind(self, cache: Cache) -> None:
        with pytest.raises(NotCached):
            cache.verify(KEY)
        assert not cache.path.exists()


class TestOpen:
    """A Dataset object keeps its folder."""

    def test_one_that_is_removed_after_it_was_found_is_a_miss(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(home, KEY)
        find = cache.find

        def find_then_remove(*asked: Any) -> Path | None:
            found = find(*asked)
            if found is not None:
                cache.remove(KEY)
            return found

        monkeypatch.setattr(cache, "find", find_then_remove)
        assert cache.open(KEY) is None

    @pytest.fixture(params=["as always", "another disk", "another disk, no tag", "no tag"])
    def folder(self, request: pytest.FixtureRequest, home: Home, tmp_path: Path) -> Path:
        if "another disk" in request.param:
            (tmp_path / "disk").mkdir()
            home.directory.mkdir()
            home.datasets.symlink_to(tmp_path / "disk")
        folder = put(home, KEY)
        with home.changing(KEY):  # as every download does
            pass
        if "no tag" in request.param:
            (home.directory / "CACHEDIR.TAG").unlink()
        return folder

    @pytest.mark.parametrize("how", ["opened", "by its path", "by an alias"])
    def test_it_is_not_removed(self, cache: Cache, home: Home, folder: Path, how: str) -> None:
        home.add_alias(OTHER, KEY)
        if how == "opened":
            opened = cache.open(KEY)
        else:
            opened = Dataset(folder if how == "by its path" else home.datasets / OTHER)
        assert opened is not None
        with pytest.raises(UsageError, match="in use"):
            cache.remove(KEY)
        opened.close()
        cache.remove(KEY)

    def test_every_object_of_it_counts(self, cache: Cache, home: Home) -> None:
        folder = put(home, KEY)
        home.add_alias(OTHER, KEY)
        first, second, third = cache.open(KEY), Dataset(folder), Dataset(home.datasets / OTHER)
        assert first is not None
        for closed in (second, second, third):
            closed.close()
            with pytest.raises(UsageError, match="in use"):
                cache.remove(KEY)
        first.close()
        cache.remove(KEY)


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
        for number in range(4):
            put(home, f"{KEY}{number}", size=1000, used_at=NOW - (10 - number) * DAY_S)
        pruned = cache.prune(max_bytes=2500)
        assert [entry.key[-1] for entry in pruned.removed] == ["0", "1"]
        assert pruned.freed_bytes == 2000
        assert [entry.key[-1] for entry in cache.entries()] == ["3", "2"]

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

        def both(path: str, **more: Any) -> None:
            unlink(path, **more)
            unlink(path, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", both)
            files.remove(folder)
        assert not folder.exists()

    def test_unfinished_downloads_go_after_a_week(self, cache: Cache, home: Home) -> None:
        home.prepare()
        for age_days, name in ((8, f".{KEY}.etag.tmp"), (6, f".{OTHER}.etag.tmp")):
            folder = home.datasets / name
            folder.mkdir()
            (folder / "x.part").write_bytes(bytes(500))
            os.utime(folder, (NOW - age_days * DAY_S,) * 2)
        assert cache.prune(keep_days=1, dry_run=True).freed_bytes == 500
        assert len(list(home.datasets.iterdir())) == 2
        assert cache.prune(keep_days=1).freed_bytes == 500
        assert [path.name for path in home.datasets.iterdir()] == [f".{OTHER}.etag.tmp"]

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
            "old": "",
            "older": "",
            "recent": "",
        }
