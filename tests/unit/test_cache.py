"""The local cache, without a store: hits, aliases, locks, disks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dscache.cache.cache import Cache
from dscache.cache.eviction import DAY_S
from dscache.cache.home import Home
from dscache.errors import ConfigError, NoSpace, NotCached, UsageError
from dscache.folder.selection import Selection
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.reading.dataset import Dataset
from support.caches import KEY, MARKER, NOW, OTHER, SHARD, Clock, put, put_marker
from support.measured import unmeasured


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
        put_marker(folder, without=frozenset({"train0"}))
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
        put_marker(folder)
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
            folder = put(home, key, used_at=NOW - 9 * DAY_S)
            (folder / "manifest.json").unlink()
            (folder / "x.tfrecord").rename(folder / SHARD)
        assert [entry.damaged for entry in cache.entries()] == [True, True]
        assert not cache.has(KEY)
        assert cache.verify(KEY) == [("manifest.json", "missing")]
        left = (home.datasets / KEY / SHARD).stat().st_size
        assert cache.prune(max_bytes=0).removed == []  # only by name
        assert cache.remove(KEY) == cache.remove(OTHER) == left

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

        def refuse_times(path: Path, times: object = None, *, follow_symlinks: bool) -> None:
            if times is not None:
                raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
            utime(path, follow_symlinks=follow_symlinks)

        monkeypatch.setattr(os, "utime", refuse_times)
        assert cache.find(KEY) is not None
        assert home.used_at(KEY) > 1e9

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSPC])
    def test_a_mark_that_cannot_be_made_is_done_without(
        self, cache: Cache, home: Home, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        folder = put(home, KEY)

        def refuse(path: Path, *_: object, **more: bool) -> None:
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
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=unmeasured(),
        )
        loaded = set(done.stdout.split())
        heavy = {
            "boto3", "botocore", "urllib3", "http.client", "ssl", "socket", "msgspec", "numpy",
            "blake3", "filelock", "minio", "tensorflow", "dataclasses", "inspect", "asyncio",
        }  # fmt: skip
        assert loaded & heavy == set()


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
