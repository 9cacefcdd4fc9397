"""The local directory of datasets, `$DSCACHE_HOME`: its files, marks and locks.

    CACHEDIR.TAG                    tells backup programs to leave it out
    datasets/<key>/                 members, manifest.json (the ready marker), maybe partial.json
    datasets/<asked key>            relative symlink to the key it resolved to
    datasets/.<key>.<etag>.tmp/     an unfinished download (see `workspace`)
    locks/<key>.download            held by the one process that downloads or removes the dataset
    locks/<key>.readers             shared by processes that have it open (see `readers`)
    used/<key>                      empty; its modification time is when it was last handed out
    pins/<key>                      empty; there while the dataset is pinned

Locks end with the process that holds them, however it ends. Lock files are never removed: whoever
waits for a removed one would hold a lock nobody sees.

A hit must cost next to nothing, so nothing heavy is imported here; see `cache`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import NotCached, UsageError
from ..folder import locks
from ..folder.contents import MANIFEST, PARTIAL, usable
from .eviction import CachedDataset
from .marks import Marks

SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n"  # https://bford.info/cachedir/
COMMENT = b"# This directory holds copies of datasets that dscache can fetch again.\n"


class Home:
    """Paths and locks below one directory, and its marks. `clock` gives Unix time."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self.directory = directory
        self.datasets = directory / "datasets"
        self.marks = Marks(directory, clock)

    def prepare(self) -> None:
        """Make the directory, if it is not there yet."""
        self.datasets.mkdir(parents=True, exist_ok=True)
        tag = self.directory / "CACHEDIR.TAG"
        try:
            if tag.stat().st_size >= len(SIGNATURE):
                return
        except FileNotFoundError:
            pass
        from ..files import write_file

        write_file(tag, SIGNATURE + COMMENT)

    def folder(self, key: str) -> Path:
        """The folder that a key, or an alias of it, stands for; it need not exist.

        Raises UsageError for what cannot be a key.
        """
        if not key or key.startswith(".") or "/" in key or "\0" in key:
            raise UsageError(f"{key!r} is not a key; `dscache cache ls` shows those that are here")
        return locks.alias_target(self.datasets / key)

    def required(self, key: str) -> Path:
        """The folder of a dataset that is here, be it damaged. Raises NotCached, UsageError."""
        path = self.folder(key)
        if not path.is_dir():
            raise NotCached(f"{key} is not in {self.datasets}; `dscache cache ls` shows what is")
        return path

    def link(self, asked: str, key: str) -> None:
        """Make `asked` an alias of `key`, in one step."""
        path = self.datasets / asked
        if path.is_symlink() and path.readlink() == Path(key):
            return
        temporary = path.with_name(f".{asked}.{os.getpid()}.link")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(key)
        temporary.replace(path)

    def unlink_dangling(self) -> None:
        """Remove the aliases of datasets that are gone."""
        for path in self._paths():
            if path.is_symlink() and not path.exists():
                path.unlink(missing_ok=True)

    def used_at(self, key: str) -> float:
        """Unix time the dataset was last handed out, or came."""
        noted = self.marks.used_at(key)
        if noted is not None:
            return noted
        folder = self.datasets / key
        for path in (folder / MANIFEST, folder):
            with suppress(FileNotFoundError):
                return path.stat().st_mtime
        return 0.0

    def entries(self) -> list[CachedDataset]:
        """All datasets, aliases with those they stand for, the most recently used first."""
        folders, aliases = [], dict[str, list[str]]()
        for path in self._paths():
            if path.is_symlink():
                aliases.setdefault(path.readlink().name, []).append(path.name)
            elif path.is_dir():
                folders.append(path)
        found = [self._entry(path, tuple(aliases.get(path.name, ()))) for path in folders]
        return sorted(found, key=lambda entry: entry.used_at, reverse=True)

    # locks

    def lock(self, key: str) -> Path:
        """The lock that readers of a dataset share (see `readers`)."""
        return locks.readers_lock(self.directory, key)

    @contextmanager
    def changing(self, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Be the one who downloads, repairs or removes; `waiting` is called if that takes waiting
        for another process."""
        with locks.acquire(self._changing(key), waiting):
            yield

    @contextmanager
    def without_readers(self, key: str) -> Iterator[None]:
        """Take files of a dataset away while nobody reads them. Raises UsageError when somebody
        does, who is named."""
        path = self.lock(key)
        hold = locks.try_acquire(path)
        if hold is None:
            pids, remedy = locks.holders(path), "wait for that to end"
            if pids == [os.getpid()]:
                remedy = "close its Dataset objects (`Dataset.close`)"
            numbers = ", ".join(map(str, pids))
            reading = f"process {numbers} reads" if pids else "a process reads"
            raise UsageError(
                f"{key}: {reading} the local copy, which must be replaced: it is not (or no "
                f"longer) what the store has; {remedy}, then get it again"
            )
        with hold:
            yield

    def remove(self, key: str, *, force: bool, unless_used_since: float | None) -> int | None:
        """Remove a dataset's folder and mark, return the bytes freed; None when it is in use.

        `force` overrides readers (files they have open stay readable), never a download.
        """
        changing = locks.try_acquire(self._changing(key))
        if changing is None:
            return None
        with changing:
            alone = locks.try_acquire(self.lock(key))
            if alone is None and not force:
                return None
            with alone or locks.HeldLock(None):
                return self._remove(key, unless_used_since)

    def _remove(self, key: str, unless_used_since: float | None) -> int | None:
        """Remove the folder, which disappears in one step.

        Looking for a dataset takes no lock: it marks, then looks. So the mark is read when the
        folder has disappeared: whoever had found it had marked it before, and gets it back.
        """
        from ..download.staging import protected
        from ..files import remove, size_of

        path = self.datasets / key
        gone = path.with_name(f".{key}.{os.urandom(4).hex()}.gone")
        if not path.is_dir():
            return None
        with protected(path):
            path.rename(gone)
            if unless_used_since is not None and (
                self.marks.pinned(key) or self.used_at(key) >= unless_used_since
            ):
                gone.rename(path)
                return None
            size = size_of(gone)
            remove(gone)
        self.marks.forget(key)
        return size

    def _entry(self, path: Path, aliases: tuple[str, ...]) -> CachedDataset:
        from ..files import size_of

        key = path.name
        return CachedDataset(
            key=key,
            path=str(path),
            bytes=size_of(path),
            used_at=self.used_at(key),
            pinned=self.marks.pinned(key),
            in_use=locks.is_held(self.lock(key)),
            partial=(path / PARTIAL).exists(),
            damaged=not usable(path),
            aliases=aliases,
        )

    def _paths(self) -> list[Path]:
        try:
            return sorted(path for path in self.datasets.iterdir() if path.name[0] != ".")
        except FileNotFoundError:
            return []

    def _changing(self, key: str) -> Path:
        return self.directory / "locks" / f"{key}.download"
