"""Caches of others, and caches on network file systems, where locks are not what they seem."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from dscache import config
from dscache.cache.cache import Cache
from dscache.cache.eviction import DAY_S
from dscache.cache.home import Home
from dscache.download import staging
from dscache.errors import ConfigError
from dscache.folder import filesystems, locks
from support.caches import KEY, KEYS, NOW, OTHER, SHARD, put

ALIAS = OTHER


def files(folder: Path) -> dict[str, float]:
    """Everything below a folder and when it was changed."""
    return {str(path): path.lstat().st_mtime for path in sorted(folder.rglob("*"))}


@pytest.fixture
def shared(tmp_path: Path) -> Home:
    return Home(tmp_path / "shared", lambda: NOW)


@pytest.fixture
def own(tmp_path: Path) -> Home:
    return Home(tmp_path / "own", lambda: NOW)


@pytest.fixture
def cache(own: Home, shared: Home, tmp_path: Path) -> Cache:
    return Cache(
        own.directory, shared=[tmp_path / "absent", shared.directory], clock=lambda: NOW + 1
    )


# caches of others


def test_a_shared_cache_is_used_in_place_and_never_written_to(
    cache: Cache, shared: Home, own: Home
) -> None:
    folder = put(shared)
    shared.add_alias(ALIAS, KEY)
    before = files(shared.directory)
    assert cache.find(KEY) == cache.find(ALIAS) == folder
    assert cache.has(KEY)
    dataset = cache.open(KEY)
    assert dataset is not None
    assert dataset.path == folder
    with dataset.hold():
        pass
    dataset.close()
    assert files(shared.directory) == before
    assert not own.directory.exists()


def test_it_comes_before_the_own_one(cache: Cache, shared: Home, own: Home) -> None:
    mine = put(own)
    assert cache.find(KEY) == mine
    theirs = put(shared)
    assert cache.find(KEY) == theirs


@pytest.mark.parametrize(
    "partial", [b"damaged", b'{"schema": 1, "splits": {"train": {"shards": 2, "held": [0]}}}']
)
def test_what_it_lacks_is_looked_for_in_the_own_one(
    cache: Cache, shared: Home, own: Home, partial: bytes
) -> None:
    (put(shared) / "partial.json").write_bytes(partial)
    assert cache.find(KEY) is None
    mine = put(own)
    assert cache.find(KEY) == mine


@pytest.mark.parametrize("manifest", [b"", b"{", bytes(100)])
def test_a_damaged_one_does_not_come_before_the_own_one(
    cache: Cache, shared: Home, own: Home, manifest: bytes
) -> None:
    (put(shared) / "manifest.json").write_bytes(manifest)
    mine = put(own)
    assert cache.find(KEY) == mine


def test_only_the_own_one_is_looked_after(cache: Cache, shared: Home) -> None:
    put(shared, used_at=0.0)
    assert cache.entries() == []
    assert cache.prune(max_bytes=0).removed == []
    assert cache.find(KEY) is not None


def test_the_setting(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "DSCACHE_CONFIG": str(tmp_path / "c.toml")}
    (tmp_path / "c.toml").write_text('shared_homes = ["/a", "/b"]\n')
    assert config.load(environ=environ, cwd=tmp_path).shared_homes == (Path("/a"), Path("/b"))
    environ["DSCACHE_SHARED_HOMES"] = "/c::/d"
    assert config.load(environ=environ, cwd=tmp_path).shared_homes == (Path("/c"), Path("/d"))
    (tmp_path / "c.toml").write_text("shared_homes = [1]\n")
    with pytest.raises(ConfigError, match=r"shared_homes: expected a string, got list"):
        config.load(environ=environ, cwd=tmp_path)


# network file systems


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
40 22 0:50 / /home rw,relatime shared:1 - nfs4 server:/home rw
41 40 0:51 / /home/ann/local\\040disk rw - xfs /dev/sdb rw
42 22 0:52 / /scratch rw - lustre mds:/scratch rw
43 22 0:53 / /scratch rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ann/.cache/dscache", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/ann", ""),
        ("/home/ann/local disk/x", ""),
        ("/scratch/x", ""),
        ("/data", ""),
    ],
)
def test_network_file_systems_are_recognised(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert filesystems.network_type(Path(path), mounts) == kind


def test_this_machine_is_asked(tmp_path: Path) -> None:
    assert filesystems.network_type(tmp_path) == ""
    assert filesystems.network_type(tmp_path, tmp_path / "no such file") == ""


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "network_type", lambda path: "nfs4")


def test_prune_keeps_for_a_week_what_other_machines_may_read(
    own: Home, nfs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, days in zip(KEYS, (1, 6, 8), strict=False):
        put(own, key, used_at=NOW - days * DAY_S - 60)
    cache = Cache(own.directory, clock=lambda: NOW)
    assert [entry.key for entry in cache.prune(max_bytes=0).removed] == [KEYS[2]]
    monkeypatch.undo()
    assert len(cache.prune(max_bytes=0).removed) == 2


def test_machines_download_each_into_a_folder_of_its_own(
    tmp_path: Path, nfs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for machine in ("a.example.org", "b"):
        monkeypatch.setattr("socket.gethostname", lambda machine=machine: machine)
        with staging.staging_folder(tmp_path / KEY, "etag") as folder:
            (folder.path / SHARD).touch()
            names.append(folder.path.name)
    assert names == [f".{KEY}.etag@a-example-org.tmp", f".{KEY}.etag@b.tmp"]


@pytest.fixture(params=[errno.EBADF, errno.ENOLCK, errno.ENOSYS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_where_nothing_can_be_locked_everything_works(own: Home, no_locks: None) -> None:
    put(own, used_at=0.0)
    with locks.acquire_shared(own.readers_lock(KEY)), own.changing(KEY):
        assert not locks.is_held(own.readers_lock(KEY))
    assert own.remove(KEY, force=False, unless_used_since=None) is not None


def test_where_nothing_can_be_locked_unfinished_downloads_stay_for_a_week(
    tmp_path: Path, no_locks: None
) -> None:
    with staging.staging_folder(tmp_path / KEY, "one") as folder:
        (folder.path / SHARD).touch()
    with staging.staging_folder(tmp_path / KEY, "two") as other:
        (other.path / SHARD).touch()
        assert folder.path.exists()  # somebody may be at it
    os.utime(folder.path, (0, 0))
    assert staging.discard_old(tmp_path, before=1.0) == 0
    assert not folder.path.exists()
    assert other.path.exists()


def test_a_look_at_the_same_moment_is_no_reader(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    put(own, used_at=0.0)
    locks.acquire_shared(own.readers_lock(KEY)).release()
    flock, asked = fcntl.flock, 0

    def busy_first(handle: int, how: int) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise BlockingIOError(errno.EWOULDBLOCK, "somebody else looks")
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", busy_first)
    assert not locks.is_held(own.readers_lock(KEY))
    asked = 0
    assert own.remove(KEY, force=False, unless_used_since=None) is not None


def test_a_lock_file_of_another_user(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    locks.acquire_shared(own.readers_lock(KEY)).release()
    open_ = os.open

    def refuse_writing(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse_writing)
    with locks.acquire_shared(own.readers_lock(KEY)):
        assert locks.is_held(own.readers_lock(KEY))
        assert locks.try_acquire(own.readers_lock(KEY)) is None
    assert not locks.is_held(own.readers_lock(KEY))
    with pytest.raises(PermissionError):
        locks.try_acquire(own.readers_lock("other"))


def test_another_error_is_an_error(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.EIO, "no disk")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="no disk"):
        locks.acquire_shared(own.readers_lock(KEY))
