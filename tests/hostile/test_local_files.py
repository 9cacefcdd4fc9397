"""Caches in which links, other people's files or the user's own files lie: none of them is harmed.

Only what dscache put there is written to or removed, and nothing is reached through a link.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dscache.cache.cache import Cache
from dscache.config import Config
from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.errors import ConfigError, UsageError
from dscache.files import write_file
from dscache.folder.selection import Selection
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store
from support.datasets import contents, publish, random_files, url_of
from support.running import Ran, clean_environ, dscache

pytestmark = pytest.mark.store
FILES = random_files([5000, 6000])
FIRST, SECOND = FILES
OTHER_KEY = "photos_1.0.0_" + "b" * 32
DAY_S = 86400.0
MINE = b"MY OWN WORK, 3 WEEKS OF IT"


@pytest.fixture
def live(store: Store) -> Live:
    return publish(store, FILES)


@pytest.fixture
def folder(live: Live, client_config: Config) -> Path:
    """The dataset's folder in the cache, which does not exist yet; its parent does."""
    datasets = client_config.home / "datasets"
    datasets.mkdir(parents=True)
    return datasets / live.spec.key


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user, outside of the cache."""
    path = tmp_path / "mine.bin"
    path.write_bytes(MINE)
    return path


@pytest.fixture
def get(live: Live, client_config: Config) -> Callable[..., Ran]:
    """Run `dscache get` of the dataset."""
    return lambda *words, **environ: dscache(client_config, "get", live.spec.key, *words, **environ)


def staging(folder: Path, live: Live, suffix: str = "tmp") -> Path:
    """The folder of an unfinished download."""
    return folder.with_name(f".{folder.name}.{live.zip_etag}.{suffix}")


def make_old(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        os.utime(each, (time.time() - 30 * DAY_S,) * 2, follow_symlinks=False)


def tree(folder: Path) -> dict[str, bytes | str]:
    """What is below a folder: contents of files, targets of links."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


class TestProject:
    """A cloned repository: a dscache.toml, credentials in it, and a cache that came with it."""

    @pytest.fixture
    def repo(self, tmp_path: Path, client_config: Config, live: Live) -> Path:
        repo = tmp_path / "user" / "repo"
        repo.mkdir(parents=True)
        self.write(repo, client_config, 'home = "cache"')
        return repo

    def write(self, repo: Path, config: Config, line: str) -> None:
        (repo / "dscache.toml").write_text(
            f'endpoint = "{config.endpoint}"\nbucket = "{config.bucket}"\n'
            f'access_key = "{config.access_key}"\nsecret_key = "{config.secret_key}"\n{line}\n'
        )

    def run(self, repo: Path, *words: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-c", "from dscache.cli import main; main()", *words],
            cwd=repo,
            env={**clean_environ(), "HOME": str(repo.parent), "XDG_CONFIG_HOME": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def test_its_link_reaches_no_file_of_the_user(self, repo: Path, live: Live) -> None:
        bashrc = repo.parent / ".bashrc"
        bashrc.write_bytes(MINE)
        parts = staging(repo / "cache" / "datasets" / live.spec.key, live)
        parts.mkdir(parents=True)
        (parts / f"{FIRST}.part").symlink_to("../../../../.bashrc")
        refused = self.run(repo, "get", live.spec.key)
        assert refused.code == ConfigError.exit_code
        assert "names the home" in refused.err and "dscache trust" in refused.err
        assert bashrc.read_bytes() == MINE
        assert self.run(repo, "trust").code == 0
        ran = self.run(repo, "get", live.spec.key)
        assert ran.code == 0, ran.err
        assert contents(repo / ran.out.strip()) == FILES
        assert bashrc.read_bytes() == MINE

    @pytest.mark.parametrize("setting", ["home", "shared_homes"])
    def test_the_dataset_that_came_with_it_is_not_handed_out(
        self, repo: Path, live: Live, client_config: Config, setting: str
    ) -> None:
        self.write(repo, client_config, f'{setting} = "cache"')
        forged = repo / "cache" / "datasets" / live.spec.key
        forged.mkdir(parents=True)
        (forged / FIRST).write_bytes(b"wrong")
        (forged / "manifest.json").write_text(json.dumps({"members": [{"name": FIRST, "size": 5}]}))
        refused = self.run(repo, "get", live.spec.key)
        assert (refused.code, refused.out) == (ConfigError.exit_code, "")
        assert f"names the {setting}" in refused.err


class TestUnfinished:
    """What lies where an earlier download would have left something."""

    @pytest.fixture(params=["link", "hard link", "dangling link", "pipe"])
    def planted(self, request: pytest.FixtureRequest, folder: Path, live: Live, mine: Path) -> Path:
        path = staging(folder, live) / f"{FIRST}.part"
        path.parent.mkdir()
        if request.param == "link":
            path.symlink_to(mine)
        elif request.param == "hard link":
            path.hardlink_to(mine)
        elif request.param == "dangling link":
            path.symlink_to(mine.with_name("new.bin"))
        else:
            os.mkfifo(path)
        return path

    def test_a_part_that_is_no_file_of_its_own_is_begun_anew(
        self, planted: Path, folder: Path, mine: Path, get: Callable[..., Ran]
    ) -> None:
        ran = get()
        assert ran.code == 0, ran.err
        assert contents(folder) == FILES
        assert not any(path.is_symlink() for path in folder.iterdir())
        assert mine.read_bytes() == MINE
        assert not mine.with_name("new.bin").exists()

    def test_a_finished_member_that_is_a_link(
        self, folder: Path, live: Live, mine: Path, get: Callable[..., Ran]
    ) -> None:
        staging(folder, live).mkdir()
        (staging(folder, live) / FIRST).symlink_to(mine)
        assert get().code == 0
        assert contents(folder) == FILES and not (folder / FIRST).is_symlink()
        assert mine.read_bytes() == MINE

    @pytest.mark.parametrize("suffix", ["tmp", "rest"])
    def test_a_folder_that_is_a_link_is_refused(
        self, folder: Path, live: Live, tmp_path: Path, get: Callable[..., Ran], suffix: str
    ) -> None:
        theirs = tmp_path / "their"
        theirs.mkdir()
        for name in (".bashrc", "manifest.json", "thesis.tex"):
            (theirs / name).write_bytes(MINE)
        before = tree(theirs)
        staging(folder, live, suffix).symlink_to(theirs)
        refused = get()
        assert refused.code == UsageError.exit_code
        assert str(staging(folder, live, suffix)) in refused.err
        assert tree(theirs) == before

    def test_the_folder_becomes_a_link_during_the_download(
        self, folder: Path, live: Live, store: Store, tmp_path: Path
    ) -> None:
        theirs = tmp_path / "their"
        theirs.mkdir()
        for name in (".bashrc", "manifest.json", FIRST, f"{SECOND}.part"):
            (theirs / name).write_bytes(MINE)
        before = tree(theirs)

        def swap(done: int, total: int) -> None:
            parts = staging(folder, live)
            if parts.is_dir() and not parts.is_symlink():
                parts.rename(tmp_path / "moved")
                parts.symlink_to(theirs)

        with pytest.raises((OSError, UsageError)):
            download(live, folder, url_of(store, live), options=TransferOptions(progress=swap))
        assert tree(theirs) == before
        assert not folder.exists()


class TestFoldersOfOthers:
    """A cache in a folder where the user keeps other things."""

    @pytest.fixture(params=["folder", "linked"])
    def datasets(
        self, request: pytest.FixtureRequest, client_config: Config, tmp_path: Path
    ) -> Path:
        datasets = client_config.home / "datasets"
        if request.param == "linked":
            client_config.home.mkdir()
            (tmp_path / "disk").mkdir()
            datasets.symlink_to(tmp_path / "disk")
        for name in ("my-thesis", OTHER_KEY, ".vim.old", f".{OTHER_KEY}.x.old"):
            (datasets / name / "sub").mkdir(parents=True)
            (datasets / name / "results.csv").write_bytes(MINE)
            (datasets / name / "sub" / "model.bin").write_bytes(MINE)
        (datasets / "dangling").symlink_to("/nowhere/in/particular")
        (datasets / OTHER_KEY.replace("b", "c")).symlink_to("/nowhere/in/particular")
        make_old(datasets)
        return datasets

    def test_nothing_of_it_makes_room(
        self, datasets: Path, live: Live, client_config: Config, get: Callable[..., Ran]
    ) -> None:
        before = tree(datasets)
        ran = get(DSCACHE_CACHE_LIMIT="20K")
        assert ran.code == 0, ran.err
        pruned = dscache(client_config, "cache", "prune", "--keep-days", "0", "--max-size", "0")
        assert pruned.code == 0, pruned.err
        assert before.items() <= tree(datasets).items()

    @pytest.mark.parametrize("name", ["my-thesis", ".vim.old", OTHER_KEY])
    @pytest.mark.parametrize("force", [[], ["--force"]])
    def test_nothing_of_it_is_removed_by_name(
        self, datasets: Path, client_config: Config, name: str, force: list[str]
    ) -> None:
        before = tree(datasets)
        refused = dscache(client_config, "cache", "rm", name, *force)
        assert refused.code == UsageError.exit_code
        assert tree(datasets) == before

    def test_backups_still_include_it(
        self, datasets: Path, client_config: Config, get: Callable[..., Ran]
    ) -> None:
        assert get().code == 0
        assert not (client_config.home / "CACHEDIR.TAG").exists()

    def test_a_cache_of_its_own_is_tagged(
        self, client_config: Config, get: Callable[..., Ran]
    ) -> None:
        assert get().code == 0
        assert (client_config.home / "CACHEDIR.TAG").exists()


class TestDataset:
    """A dataset in the cache that its user has worked with."""

    @pytest.fixture(autouse=True)
    def cached(self, folder: Path, get: Callable[..., Ran]) -> None:
        assert get().code == 0

    @pytest.fixture(params=[None, b"", b"{}", b"{garbage}"])
    def damage(self, request: pytest.FixtureRequest, folder: Path) -> Callable[[], None]:
        def damage() -> None:
            (folder / "manifest.json").unlink()
            if request.param is not None:
                (folder / "manifest.json").write_bytes(request.param)

        return damage

    def test_an_edited_copy_of_hard_links_is_not_repaired(
        self, folder: Path, tmp_path: Path, damage: Callable[[], None], get: Callable[..., Ran]
    ) -> None:
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in FILES:
            (copy / name).hardlink_to(folder / name)
        with (copy / FIRST).open("r+b") as file:
            file.write(MINE)
        before = tree(copy)
        damage()
        ran = get()
        assert ran.code == 0, ran.err
        assert contents(folder) == FILES
        assert tree(copy) == before

    @pytest.mark.parametrize("repair", [["get"], ["cache", "verify", "--repair"]])
    def test_a_shard_moved_to_another_disk_is_not_written_to(
        self,
        folder: Path,
        mine: Path,
        damage: Callable[[], None],
        client_config: Config,
        repair: list[str],
    ) -> None:
        (folder / FIRST).unlink()
        (folder / FIRST).symlink_to(mine)
        damage()
        ran = dscache(client_config, *repair, folder.name)
        assert ran.code == 0, ran.err
        assert mine.read_bytes() == MINE
        assert contents(folder) == FILES and not (folder / FIRST).is_symlink()

    def test_a_wrong_shard_behind_a_link(
        self, folder: Path, mine: Path, client_config: Config
    ) -> None:
        (folder / FIRST).unlink()
        (folder / FIRST).symlink_to(mine)
        ran = dscache(client_config, "cache", "verify", "--repair")
        assert ran.code == 0, ran.err
        assert mine.read_bytes() == MINE and contents(folder) == FILES

    def add_own_files(self, folder: Path) -> dict[str, bytes | str]:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "best.pt").write_bytes(MINE)
        (folder / "notes.txt").write_bytes(MINE)
        (folder / "photos-mine.tfrecord").write_bytes(MINE)
        return {name: content for name, content in tree(folder).items() if content == MINE}

    @pytest.mark.parametrize("repair", [["get"], ["cache", "verify", "--repair"]])
    def test_own_files_in_a_damaged_one_are_named_and_kept(
        self, folder: Path, damage: Callable[[], None], client_config: Config, repair: list[str]
    ) -> None:
        own = self.add_own_files(folder)
        damage()
        refused = dscache(client_config, *repair, folder.name)
        assert refused.code != 0
        assert "checkpoints, notes.txt, photos-mine.tfrecord" in refused.err
        assert "move them" in refused.err
        assert own.items() <= tree(folder).items()
        for name in ("checkpoints", "notes.txt", "photos-mine.tfrecord"):
            (folder / name).rename(folder.parents[2] / name)
        assert dscache(client_config, *repair, folder.name).code == 0
        assert contents(folder) == FILES

    def test_own_files_in_one_that_was_rebuilt(
        self, folder: Path, store: Store, get: Callable[..., Ran]
    ) -> None:
        own = self.add_own_files(folder)
        (folder / FIRST).unlink()  # so that it is no hit
        publish(store, random_files([700], seed=1), generation=1)
        refused = get()
        assert refused.code == UsageError.exit_code
        assert "notes.txt" in refused.err
        assert own.items() <= tree(folder).items()

    def test_own_files_that_appear_during_the_download(self, folder: Path, store: Store) -> None:
        (folder / FIRST).unlink()  # so that it is no hit
        again = publish(store, random_files([700], seed=1), generation=1)

        def add(done: int, total: int) -> None:
            (folder / "notes.txt").write_bytes(MINE)

        cache = Cache(folder.parents[1])
        with pytest.raises(UsageError, match=r"notes\.txt"):
            cache.fetch(again, url_of(store, again), options=TransferOptions(progress=add))
        assert (folder / "notes.txt").read_bytes() == MINE

    def test_own_files_hinder_neither_a_hit_nor_a_wrong_shard(
        self, folder: Path, get: Callable[..., Ran]
    ) -> None:
        own = self.add_own_files(folder)
        assert get().code == 0
        (folder / FIRST).write_bytes(b"short")
        assert get().code == 0
        assert (folder / FIRST).read_bytes() == FILES[FIRST]
        assert own.items() <= tree(folder).items()

    @pytest.mark.parametrize("force", [[], ["--force"]])
    def test_own_files_are_not_removed(
        self, folder: Path, client_config: Config, force: list[str]
    ) -> None:
        own = self.add_own_files(folder)
        refused = dscache(client_config, "cache", "rm", folder.name, *force)
        assert refused.code == UsageError.exit_code
        assert "checkpoints, notes.txt, photos-mine.tfrecord" in refused.err
        make_old(client_config.home)
        ran = dscache(client_config, "cache", "prune", "--keep-days", "1")
        assert (ran.code, ran.out) == (0, "")
        assert own.items() <= tree(folder).items()
        assert "holds other files" in dscache(client_config, "cache", "ls").out

    def test_without_them_it_is_removed(self, folder: Path, client_config: Config) -> None:
        make_old(client_config.home)
        ran = dscache(client_config, "cache", "prune", "--keep-days", "1")
        assert f"removed {folder.name}" in ran.out
        assert list(folder.parent.iterdir()) == []

    def test_a_damaged_one_is_removed_by_name_only(
        self, folder: Path, client_config: Config, damage: Callable[[], None]
    ) -> None:
        damage()
        make_old(client_config.home)
        assert dscache(client_config, "cache", "prune", "--keep-days", "1").out == ""
        assert folder.exists()
        assert dscache(client_config, "cache", "rm", folder.name).code == 0
        assert not folder.exists()

    def test_a_folder_that_was_moved_and_linked(
        self, folder: Path, tmp_path: Path, client_config: Config, get: Callable[..., Ran]
    ) -> None:
        moved = tmp_path / "bigdisk"
        folder.rename(moved)
        folder.symlink_to(moved)
        assert get().code == 0  # a hit
        make_old(client_config.home)
        dscache(client_config, "cache", "prune", "--keep-days", "1")
        assert dscache(client_config, "cache", "rm", folder.name).code == UsageError.exit_code
        (moved / FIRST).write_bytes(MINE)
        before = tree(moved)
        refused = get()
        assert refused.code == UsageError.exit_code
        assert str(folder) in refused.err and "link" in refused.err
        assert (folder.readlink(), tree(moved)) == (moved, before)


class TestOtherFiles:
    """The cache's small files."""

    def test_a_folder_under_the_key_that_never_was_a_dataset(
        self, folder: Path, get: Callable[..., Ran]
    ) -> None:
        folder.mkdir()
        (folder / "thesis.txt").write_bytes(MINE)
        refused = get()
        assert refused.code == UsageError.exit_code
        assert str(folder) in refused.err and "thesis.txt" in refused.err
        assert tree(folder) == {"thesis.txt": MINE}

    def test_a_file_under_the_key(self, folder: Path, get: Callable[..., Ran]) -> None:
        folder.write_bytes(MINE)
        refused = get()
        assert refused.code == UsageError.exit_code and str(folder) in refused.err
        assert folder.read_bytes() == MINE

    def test_an_alias_replaces_no_file(self, folder: Path, live: Live, store: Store) -> None:
        (folder.parent / OTHER_KEY).write_bytes(MINE)
        with pytest.raises(UsageError, match=OTHER_KEY):
            Cache(folder.parents[1]).fetch(live, url_of(store, live), asked=OTHER_KEY)
        assert (folder.parent / OTHER_KEY).read_bytes() == MINE

    @pytest.mark.parametrize("name", ["{}.download", "{}.readers"])
    @pytest.mark.parametrize("there", [True, False])
    def test_a_lock_that_is_a_link(
        self,
        folder: Path,
        mine: Path,
        client_config: Config,
        get: Callable[..., Ran],
        name: str,
        there: bool,
    ) -> None:
        locks = client_config.home / "locks"
        locks.mkdir()
        target = mine if there else mine.with_name("new.bin")
        (locks / name.format(folder.name)).symlink_to(target)
        refused = get()
        assert refused.code == ConfigError.exit_code
        assert str(locks / name.format(folder.name)) in refused.err
        assert mine.read_bytes() == MINE
        assert not mine.with_name("new.bin").exists()

    @pytest.mark.parametrize("kind", ["used", "pins"])
    @pytest.mark.parametrize("there", [True, False])
    def test_a_mark_that_is_a_link(
        self,
        folder: Path,
        mine: Path,
        client_config: Config,
        get: Callable[..., Ran],
        kind: str,
        there: bool,
    ) -> None:
        os.utime(mine, (1e9, 1e9))
        (client_config.home / kind).mkdir()
        target = mine if there else mine.with_name("new.bin")
        (client_config.home / kind / folder.name).symlink_to(target)
        assert get().code == 0
        assert get().code == 0
        dscache(client_config, "cache", "pin", folder.name)
        assert mine.stat().st_mtime == 1e9
        assert not mine.with_name("new.bin").exists()

    def test_a_temporary_name_that_is_a_link(self, mine: Path, tmp_path: Path) -> None:
        (tmp_path / f".settings.{os.getpid()}").symlink_to(mine)
        write_file(tmp_path / "settings", b"content")
        assert (tmp_path / "settings").read_bytes() == b"content"
        assert mine.read_bytes() == MINE

    def test_a_description_that_is_a_link(
        self, folder: Path, live: Live, store: Store, mine: Path
    ) -> None:
        cache = Cache(folder.parents[1])
        cache.fetch(live, url_of(store, live), Selection.of(shards=[0]))
        partial = folder / "partial.json"
        text = partial.read_bytes()
        mine.write_bytes(text)
        partial.unlink()
        partial.symlink_to(mine)
        cache.fetch(live, url_of(store, live))
        assert mine.read_bytes() == text
        assert contents(folder) == FILES
