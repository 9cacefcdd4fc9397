"""The local directory of datasets, `$DSCACHE_HOME`: its files, marks and locks.

    CACHEDIR.TAG                    makes backup programs skip the directory; only if nothing else
                                    than what dscache makes is in it
    datasets/<key>/                 members, manifest.json (the ready marker), maybe partial.json
    datasets/<alias>                relative symlink to the key that a requested key resolved to
    datasets/.<key>.<etag>.tmp/     an unfinished download (see `download.staging`)
    locks/<key>.download            held by the process that downloads or removes the dataset
    locks/<key>.readers             shared by the processes that have it open (see `folder.locks`)
    used/<key>                      empty; its modification time is when it was last handed out
    pins/<key>                      empty; exists while the dataset is pinned

Locks end with the process that holds them, however it ends. Lock files are never removed: a process
that waits for a removed one would hold a lock that no other process sees.

A hit imports this module, so it imports nothing heavy; see `cache`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..canonical import KEY
from ..errors import NotCached, UsageError
from ..folder import locks
from ..folder.contents import MANIFEST, PARTIAL, is_of
from .eviction import CachedDataset
from .marks import Marks

SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n"  # https://bford.info/cachedir/
COMMENT = b"# This directory holds copies of datasets that dscache can fetch again.\n"
OWN_NAMES = frozenset(  # the last three: of `dscache up` and `dscache-builder try`
    ("CACHEDIR.TAG", "datasets", "locks", "used", "pins", "environments", "go", "minio")
)


class Home:
    """The paths, locks and marks below one directory. `clock` returns Unix time."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self.directory = directory
        self.datasets = directory / "datasets"
        self.marks = Marks(directory, clock)

    def prepare(self) -> None:
        """Create the directory, if it does not exist."""
        self.datasets.mkdir(parents=True, exist_ok=True)
        tag = self.directory / "CACHEDIR.TAG"
        try:
            if tag.stat().st_size >= len(SIGNATURE):
                return
        except FileNotFoundError:
            pass
        from ..files import write_file

        if self._is_own():
            write_file(tag, SIGNATURE + COMMENT)

    def folder(self, key: str) -> Path:
        """Return the folder of a key or alias; it need not exist.

        Raises UsageError if `key` cannot be a key.
        """
        if not KEY.fullmatch(key):
            raise UsageError(f"{key!r} is not a key; `dscache cache ls` lists the keys")
        return locks.alias_target(self.datasets / key)

    def existing_folder(self, key: str) -> Path:
        """Return the folder of a dataset, which may be damaged. Raises NotCached, UsageError."""
        path = self.folder(key)
        if not path.is_dir():
            raise NotCached(
                f"{key} is not in {self.datasets}; `dscache cache ls` lists the datasets"
            )
        return path

    def require_alias(self, alias: str) -> None:
        """Raise UsageError if something that is no alias has the name of one."""
        path = self.datasets / alias
        if os.path.lexists(path) and not _is_alias(path):
            raise UsageError(
                f"{path}: is in the way of a link to the dataset that the key stands for; move it "
                "away"
            )

    def add_alias(self, alias: str, key: str) -> None:
        """Make `alias` stand for `key`, atomically. Raises the errors of `require_alias`."""
        self.require_alias(alias)
        path = self.datasets / alias
        if path.is_symlink() and path.readlink() == Path(key):
            return
        temporary = path.with_name(f".{alias}.{os.getpid()}.link")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(key)
        temporary.replace(path)

    def remove_alias(self, key: str) -> None:
        """Remove the alias of this name, if it is one."""
        if _is_alias(self.datasets / key):
            (self.datasets / key).unlink(missing_ok=True)

    def remove_dangling_aliases(self) -> None:
        """Remove the aliases of datasets that do not exist any more."""
        for path in self._paths():
            if _is_alias(path) and not path.exists():
                path.unlink(missing_ok=True)

    def used_at(self, key: str) -> float:
        """Return the Unix time the dataset was last handed out, else when it was downloaded."""
        marked_at = self.marks.used_at(key)
        if marked_at is not None:
            return marked_at
        folder = self.datasets / key
        for path in (folder / MANIFEST, folder):
            with suppress(FileNotFoundError):
                return path.stat().st_mtime
        return 0.0

    def entries(self) -> list[CachedDataset]:
        """Return all datasets with their aliases, most recently used first.

        Links to folders elsewhere, and folders without the name of a dataset, are the user's.
        """
        folders, aliases = [], dict[str, list[str]]()
        for path in self._paths():
            if _is_alias(path):
                aliases.setdefault(path.readlink().name, []).append(path.name)
            elif path.is_dir() and not path.is_symlink():
                folders.append(path)
        entries = []
        for path in folders:
            with suppress(FileNotFoundError, UsageError):  # removed or replaced meanwhile
                entries.append(self._entry(path, tuple(aliases.get(path.name, ()))))
        return sorted(entries, key=lambda entry: entry.used_at, reverse=True)

    # -- locks

    def readers_lock(self, key: str) -> Path:
        """Return the path of the lock that the readers of a dataset share."""
        return locks.readers_lock(self.directory, key)

    @contextmanager
    def changing(self, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep other processes from downloading, repairing or removing a dataset.

        `waiting` is called once if another process is doing that.
        """
        with locks.acquire(self._change_lock(key), waiting):
            yield

    @contextmanager
    def without_readers(self, key: str) -> Iterator[None]:
        """Keep other processes from opening a dataset while its files are removed.

        Raises UsageError, naming the processes, while it is open.
        """
        with ExitStack() as held:
            lock = self._exclude_readers(key, held)
            if lock is not None:
                pids, remedy = locks.holders(lock), "wait for it to end"
                if pids == [os.getpid()]:
                    remedy = "close its Dataset objects (`Dataset.close`)"
                numbers = ", ".join(map(str, pids))
                reading = f"process {numbers} reads" if pids else "a process reads"
                raise UsageError(
                    f"{key}: {reading} the local copy, which must be replaced because it is "
                    f"damaged or the dataset was rebuilt; {remedy}, then get it again"
                )
            yield

    def remove(self, key: str, *, force: bool, unless_used_since: float | None) -> int | None:
        """Remove a dataset's folder and mark.

        Args:
            key: the dataset.
            force: ignore readers (their open files stay readable), but not a download.
            unless_used_since: keep it if it was pinned, or handed out since this Unix time.

        Returns the number of bytes freed; None if the dataset is in use. Raises UsageError if files
        that dscache did not put there are in it.
        """
        change_lock = locks.try_acquire(self._change_lock(key))
        if change_lock is None:
            return None
        with change_lock, ExitStack() as held:
            if self._exclude_readers(key, held) is not None and not force:
                return None
            return self._remove(key, unless_used_since)

    def _exclude_readers(self, key: str, held: ExitStack) -> Path | None:
        """Take the locks that readers share into `held`; return one that a reader has, if any."""
        taken = None
        for path in self._reader_locks(key):
            lock = locks.try_acquire(path)
            if lock is None:
                taken = path
            else:
                held.enter_context(lock)
        return taken

    def _reader_locks(self, key: str) -> list[Path]:
        """What readers lock: the lock file, or the folder if they came to it by another path."""
        folder = self.datasets / key
        return [self.readers_lock(key), *([folder] if folder.is_dir() else [])]

    def _remove(self, key: str, unless_used_since: float | None) -> int | None:
        """Remove the folder, which disappears atomically.

        Finding a dataset takes no lock: it marks the dataset, then checks its folder. So the mark
        is read only after the folder has been renamed. A process that had found the folder had
        marked it before, and then the folder is renamed back.
        """
        from ..folder.directory import Directory, discard, require_own

        path = self.datasets / key
        renamed = path.with_name(f".{key}.{os.urandom(4).hex()}.gone")
        if not os.path.lexists(path):
            return None
        with Directory(path) as folder:
            folder.lock()
            require_own(folder)
            path.rename(renamed)
            if not folder.is_at(renamed) or (
                unless_used_since is not None
                and (self.marks.is_pinned(key) or self.used_at(key) >= unless_used_since)
            ):
                renamed.rename(path)
                return None
            try:
                present, size = require_own(folder), folder.size()
            except UsageError:  # added since
                renamed.rename(path)
                raise
            discard(folder, renamed, present)
        self.marks.forget(key)
        return size

    def _entry(self, path: Path, aliases: tuple[str, ...]) -> CachedDataset:
        from ..folder.directory import Directory, foreign_names, manifest_members

        key = path.name
        with Directory(path) as folder:
            size, foreign = folder.size(), tuple(foreign_names(folder))
            damaged = manifest_members(folder) is None or not is_of(path, key)
        return CachedDataset(
            key=key,
            path=str(path),
            bytes=size,
            used_at=self.used_at(key),
            pinned=self.marks.is_pinned(key),
            in_use=any(map(locks.is_held, self._reader_locks(key))),
            partial=(path / PARTIAL).exists(),
            damaged=damaged,
            foreign=foreign,
            aliases=aliases,
        )

    def _paths(self) -> list[Path]:
        try:
            return sorted(path for path in self.datasets.iterdir() if KEY.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def _is_own(self) -> bool:
        """Whether the directory holds nothing else than what dscache makes there."""
        from ..download.staging import leftovers

        names = {path.name for path in self.directory.iterdir()}
        others = {*self.datasets.iterdir()} - {*self._paths(), *leftovers(self.datasets)}
        return names <= OWN_NAMES and not others

    def _change_lock(self, key: str) -> Path:
        return self.directory / locks.LOCKS / f"{key}.download"


def _is_alias(path: Path) -> bool:
    """Whether it is a link to a key beside it, as `Home.add_alias` makes them."""
    try:
        return bool(KEY.fullmatch(str(path.readlink())))
    except OSError:  # no link, or nothing there
        return False
