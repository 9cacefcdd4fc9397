"""The datasets on this machine, for any number of processes at once (layout: see `home`).

A hit must cost next to nothing: this module imports no store, no HTTP and no manifest library;
what needs them imports them where it begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, UsageError
from ..folder import contents, locks
from ..folder.contents import usable
from .diskerrors import told
from .eviction import Entry
from .home import Home

if TYPE_CHECKING:
    from ..folder.locks import Hold
    from ..protocol.manifests import Live
    from ..reading.dataset import Dataset
    from .audit import Damage
    from .pruning import Pruned


class Cache:
    """The datasets below one directory, `Config.home`. `clock` gives Unix time.

    `shared` are caches of others (`Config.shared_homes`), looked at first and used in place.
    Nothing is ever written there, no mark and no lock: who looks after them must know what is used.

    `limit_bytes` (`Config.cache_limit`): before a download the least recently used datasets make
    room for it, as `prune` does.
    """

    def __init__(
        self,
        home: Path,
        *,
        shared: Sequence[Path] = (),
        limit_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = home
        self._shared = [Home(path, clock) for path in shared]
        self._home = Home(home, clock)
        self._limit_bytes = limit_bytes
        self._clock = clock

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"

    @told
    def find(
        self,
        key: str,
        splits: Collection[str] | None = None,
        shards: Collection[int] | None = None,
    ) -> Path | None:
        """The folder of a dataset if it holds what is asked, else None; marks it as used.

        `key` may be one that resolves to another. `splits` None means all of them, `shards` are
        indices within each split. Files are not checked (see `verify`).

        Raises UsageError for a split or shard that the dataset does not have.
        """
        return self._find_shared(key, splits, shards) or self._find_own(key, splits, shards)

    def _find_shared(
        self, key: str, splits: Collection[str] | None, shards: Collection[int] | None
    ) -> Path | None:
        for home in self._shared:
            path = home.folder(key)
            try:
                if contents.folder_holds(path, splits, shards):
                    return path
            except (OSError, IntegrityError, UsageError):  # away, not ours to mend, or an old one
                continue
        return None

    def _find_own(
        self, key: str, splits: Collection[str] | None, shards: Collection[int] | None
    ) -> Path | None:
        path = self._home.folder(key)
        # marked before it is looked for: `Home.take_away` relies on that order
        if not self._home.marks.mark(path.name) and usable(path):
            self._home.marks.mark(path.name, create=True)
        try:
            return path if contents.folder_holds(path, splits, shards) else None
        except IntegrityError:  # `fetch` mends it
            return None

    def has(self, key: str) -> bool:
        """Whether the dataset (or a part of it) is here; does not count as using it."""
        return any(usable(home.folder(key)) for home in (self._home, *self._shared))

    def key(self, key: str) -> str:
        """The key that an alias stands for here; any other stands for itself."""
        return self._home.folder(key).name

    def open(
        self,
        key: str,
        splits: Collection[str] | None = None,
        shards: Collection[int] | None = None,
    ) -> Dataset | None:
        """Like `find`, as a Dataset, which is not removed before this process ends."""
        while (path := self.find(key, splits, shards)) is not None:
            with suppress(IntegrityError):  # it was removed before it was locked: look again
                return self.dataset(path)
        return None

    @told
    def dataset(self, path: Path) -> Dataset:
        """The dataset at a path that `find` or `fetch` gave."""
        from ..reading.dataset import Dataset

        own = path.parent == self._home.datasets
        return Dataset(path, lock=self._home.lock(path.name) if own else None)

    @told
    def hold(self, key: str) -> Hold:
        """Keep a dataset from being removed until the lock is released or this process ends."""
        return locks.share(self._home.lock(self.key(key)))

    @told
    def fetch(
        self,
        live: Live,
        url: Callable[[], str],
        *,
        asked: str | None = None,
        splits: Collection[str] | None = None,
        shards: Collection[int] | None = None,
        waiting: Callable[[], None] | None = None,
        note: Callable[[str], None] = lambda _: None,
        **options: Any,
    ) -> Path:
        """Find the dataset of a ready marker, or download it; one process at a time does.

        The others wait (`waiting` is called once when that begins) and find the copy. `asked` is
        the key of the spec that was asked for, when it resolved to another one. `note` is told what
        had to make room for it. `url` and `options`
        (`parallel`, `progress`, `stall_s`, `sleep`, `jitter`) are those of `download.download`.
        Raises what that raises.
        """
        from ..download.download import download

        key = live.spec.key
        shared = self._find_shared(key, splits, shards)
        if shared is not None:
            return shared
        path = self._home.datasets / key
        with self._home.changing(key, waiting):
            if self._find_own(key, splits, shards) != path:
                self._home.prepare()
                if path.is_symlink():  # what is built under its own name now was an alias once
                    path.unlink()
                if self._limit_bytes is not None:
                    options["room"] = partial(self._make_room, limit=self._limit_bytes, note=note)
                alone = partial(self._home.alone, key)
                download(live, path, url, splits=splits, shards=shards, alone=alone, **options)
                self._home.marks.mark(key, create=True)
            if asked is not None and asked != key:
                self._home.link(asked, key)
        return path

    def _make_room(
        self, whole: int, needed: int, *, limit: int, note: Callable[[str], None]
    ) -> None:
        from .pruning import make_room

        make_room(self._home, self._clock(), whole, needed, limit, note)

    @told
    def entries(self) -> list[Entry]:
        """All datasets, the most recently used first."""
        return self._home.entries()

    @told
    def pin(self, key: str) -> None:
        """Keep a dataset from being removed until `unpin`. Raises NotCached."""
        self._home.marks.pin(self._home.required(key).name)

    @told
    def unpin(self, key: str) -> None:
        """Take the pin away; a dataset without one is fine. Raises NotCached."""
        self._home.marks.unpin(self._home.required(key).name)

    @told
    def remove(self, key: str, *, force: bool = False) -> int:
        """Remove a dataset and its aliases, return the bytes freed.

        Raises NotCached, and UsageError when it is pinned, open in a process or being changed by
        one; `force` overrides the pin and the readers, whose open files stay readable.
        """
        name = self._home.required(key).name
        if self._home.marks.pinned(name) and not force:
            raise UsageError(
                f"{name} is pinned; `dscache cache unpin {name}` first, or use --force"
            )
        size = self._home.take_away(name, force=force, unless_used_since=None)
        if size is None:
            remedy = "wait for that to end" if force else "wait for it to end, or use --force"
            what = "downloading or removing" if force else "reading, downloading or removing"
            raise UsageError(f"{name} is in use, a process is {what} it; {remedy}")
        self._home.marks.unpin(name)
        self._home.unlink_dangling()
        return size

    @told
    def prune(
        self,
        max_bytes: int | None = None,
        keep_days: float | None = None,
        *,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove what was not used for `keep_days`, then the least recently used datasets until at
        most `max_bytes` are left; also unfinished downloads nobody touched for a week.

        Never a dataset that is pinned, open in a process, or was handed out in the last 24 hours,
        even if more than `max_bytes` are left then. On a network file system, where other machines
        may have it open, it is the last 7 days.
        """
        from .pruning import prune

        return prune(
            self._home, self._clock(), max_bytes=max_bytes, keep_days=keep_days, dry_run=dry_run
        )

    @told
    def verify(self, key: str) -> list[Damage]:
        """The files of a dataset that are missing or not what the ready marker says; reads all.

        Raises NotCached.
        """
        from .audit import audit

        with self.hold(self._home.required(key).name):
            return audit(self._home.required(key))

    @told
    def repair(
        self,
        key: str,
        url: Callable[[Live], str],
        *,
        damaged: Collection[Damage] | None = None,
        ready: Callable[[], Live] | None = None,
        waiting: Callable[[], None] | None = None,
        **options: Any,
    ) -> list[Damage]:
        """Fetch just the damaged files again (those of `verify` when `damaged` is None); returns
        them.

        `url` gives a fresh presigned URL of the marker's `zip_key`; `ready` the store's ready
        marker, for when the one that is here is damaged; `options` are those of `download.refetch`.
        Raises what that raises; DatasetReplaced means that the zip was retired: remove the dataset
        and get it again.
        """
        from ..download.download import mend, refetch

        path = self._home.required(key)
        with self._home.changing(path.name, waiting):
            found = self.verify(key) if damaged is None else list(damaged)
            if ready is not None and any(damage.describes for damage in found):
                live, alone = ready(), partial(self._home.alone, path.name)
                mend(live, path, lambda: url(live), alone=alone, **options)
            elif found:
                live = contents.read_manifest(path)
                names = [damage.name for damage in found]
                refetch(live, path, names, lambda: url(live), **options)
        return found
