"""Find, download, verify, repair and remove the datasets on this machine (layout: see `home`).

A hit must be fast, so this module does not import the store, HTTP or the manifest library at the
top; the methods that need them do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import IntegrityError, UsageError
from ..folder import locks
from ..folder.contents import is_of, read_manifest, usable
from ..folder.selection import EVERYTHING, Selection, folder_has
from .diskerrors import as_dscache_errors
from .eviction import CachedDataset
from .home import Home

if TYPE_CHECKING:
    from ..download.options import TransferOptions
    from ..folder.locks import HeldLock
    from ..protocol.manifests import Live
    from ..reading.dataset import Dataset
    from .audit import Damage
    from .pruning import Pruned


class Cache:
    """The datasets below one directory. Any number of processes may use it.

    Args:
        home: the directory (`Config.home`).
        shared: other caches (`Config.shared_homes`), searched first and used in place. Nothing is
            written there, neither marks nor locks: their owner must know which datasets are in use.
        limit_bytes: before a download, remove the least recently used datasets so that the cache
            stays below this size (`Config.cache_limit`).
        clock: returns Unix time.
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

    @as_dscache_errors
    def find(self, key: str, selection: Selection = EVERYTHING) -> Path | None:
        """Return the folder of a dataset and mark it as used; None if a selected part is missing.

        `key` may be an alias. Files are not checked (see `verify`). Raises UsageError for a split
        or shard that the dataset does not have.
        """
        return self._find_shared(key, selection) or self._find_own(key, selection)

    def _find_shared(self, key: str, selection: Selection) -> Path | None:
        for home in self._shared:
            path = home.folder(key)
            try:
                if folder_has(path, selection):
                    return path
            except (OSError, IntegrityError, UsageError):  # unreachable, damaged, or an old copy
                continue
        return None

    def _find_own(self, key: str, selection: Selection) -> Path | None:
        path = self._home.folder(key)
        # marked before the folder is checked: `Home.remove` relies on that order
        if not self._home.marks.mark_used(path.name) and usable(path):
            self._home.marks.mark_used(path.name, create=True)
        try:
            return path if folder_has(path, selection) else None
        except IntegrityError:  # `fetch` repairs it
            return None

    def has(self, key: str) -> bool:
        """Whether the dataset, or a part of it, is cached; does not mark it as used."""
        folders = (home.folder(key) for home in (self._home, *self._shared))
        return any(is_of(folder, folder.name) for folder in folders)

    def key(self, key: str) -> str:
        """Return the key that an alias stands for; any other key is returned unchanged."""
        return self._home.folder(key).name

    def open(self, key: str, selection: Selection = EVERYTHING) -> Dataset | None:
        """Like `find`, but return a Dataset, which cannot be removed while it is open."""
        while (path := self.find(key, selection)) is not None:
            with suppress(IntegrityError):  # removed before it was locked: try again
                return self.dataset(path)
        return None

    @as_dscache_errors
    def dataset(self, path: Path) -> Dataset:
        """Return the dataset at a path that `find` or `fetch` returned."""
        from ..reading.dataset import Dataset

        is_own = path.parent == self._home.datasets
        return Dataset(path, lock=self._home.readers_lock(path.name) if is_own else None)

    @as_dscache_errors
    def hold(self, key: str) -> HeldLock:
        """Keep a dataset from being removed until the lock is released or this process ends."""
        return locks.acquire_shared(self._home.readers_lock(self.key(key)))

    @as_dscache_errors
    def fetch(
        self,
        live: Live,
        url: Callable[[], str],
        selection: Selection = EVERYTHING,
        options: TransferOptions | None = None,
        *,
        asked: str | None = None,
        waiting: Callable[[], None] | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> Path:
        """Find the dataset of a ready marker, or download it.

        One process at a time downloads a dataset; the others wait, and then find the copy.

        Args:
            live: the ready marker.
            url: returns a fresh presigned URL of the marker's `zip_key`.
            selection: the wanted part of the dataset.
            options: how to transfer.
            asked: the requested key, if it resolved to another one.
            waiting: called once if this process has to wait for another one.
            note: called with a message for each dataset that was removed to make room.

        Raises the errors of `download.download`.
        """
        from ..download.download import download

        key = live.spec.key
        shared_path = self._find_shared(key, selection)
        if shared_path is not None:
            return shared_path
        path = self._home.datasets / key
        with self._home.changing(key, waiting):
            if self._find_own(key, selection) != path:
                self._home.prepare()
                self._home.remove_alias(key)  # now a dataset is built under its name
                if asked is not None and asked != key:
                    self._home.require_alias(asked)
                download(
                    live,
                    path,
                    url,
                    selection,
                    options,
                    without_readers=partial(self._home.without_readers, key),
                    make_room=partial(self._make_room, note=note),
                )
                self._home.marks.mark_used(key, create=True)
            if asked is not None and asked != key:
                self._home.add_alias(asked, key)
        return path

    def _make_room(self, whole: int, needed: int, *, note: Callable[[str], None]) -> None:
        from .pruning import make_room

        if self._limit_bytes is not None:
            make_room(self._home, self._clock(), whole, needed, self._limit_bytes, note)

    @as_dscache_errors
    def entries(self) -> list[CachedDataset]:
        """Return all datasets, most recently used first."""
        return self._home.entries()

    @as_dscache_errors
    def pin(self, key: str) -> None:
        """Keep a dataset from being removed until `unpin`. Raises NotCached."""
        self._home.marks.pin(self._home.existing_folder(key).name)

    @as_dscache_errors
    def unpin(self, key: str) -> None:
        """Remove the pin; a dataset without one is fine. Raises NotCached."""
        self._home.marks.unpin(self._home.existing_folder(key).name)

    @as_dscache_errors
    def remove(self, key: str, *, force: bool = False) -> int:
        """Remove a dataset and its aliases; return the number of bytes freed.

        `force` ignores a pin and readers, whose open files stay readable.

        Raises NotCached; UsageError while the dataset is pinned, read, downloaded or removed, and
        if it is a link that dscache did not make or holds files that dscache did not put there.
        """
        path = self._home.existing_folder(key)
        name = path.name
        if path.is_symlink():
            raise UsageError(
                f"{path}: is a link that dscache did not make, to {path.resolve()}; delete the "
                "link, and the folder if nobody needs it any more"
            )
        if self._home.marks.is_pinned(name) and not force:
            raise UsageError(
                f"{name} is pinned; run `dscache cache unpin {name}` first, or use --force"
            )
        size = self._home.remove(name, force=force, unless_used_since=None)
        if size is None:
            remedy = "wait for it to end" if force else "wait for it to end, or use --force"
            activity = "downloading or removing" if force else "reading, downloading or removing"
            raise UsageError(f"{name} is in use: a process is {activity} it; {remedy}")
        self._home.marks.unpin(name)
        self._home.remove_dangling_aliases()
        return size

    @as_dscache_errors
    def prune(
        self,
        max_bytes: int | None = None,
        keep_days: float | None = None,
        *,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove datasets that were not used for `keep_days`, then the least recently used datasets
        until at most `max_bytes` are left; also unfinished downloads older than a week.

        Keeps datasets that are pinned, open in a process, damaged, or were handed out in the last
        24 hours, and those with other files in their folder, even if more than `max_bytes` are
        left. On a network file system, where other machines may have them open, it keeps those of
        the last 7 days.
        """
        from .pruning import prune

        return prune(
            self._home, self._clock(), max_bytes=max_bytes, keep_days=keep_days, dry_run=dry_run
        )

    @as_dscache_errors
    def verify(self, key: str) -> list[Damage]:
        """Read all files of a dataset; return those that are missing or differ from the marker.

        Raises NotCached.
        """
        from .audit import find_damage

        with self.hold(self._home.existing_folder(key).name):
            return find_damage(self._home.existing_folder(key))

    @as_dscache_errors
    def repair(
        self,
        key: str,
        url: Callable[[Live], str],
        options: TransferOptions | None = None,
        *,
        damaged: Collection[Damage] | None = None,
        ready: Callable[[], Live] | None = None,
        waiting: Callable[[], None] | None = None,
    ) -> list[Damage]:
        """Fetch only the damaged files again; return them.

        Args:
            key: the dataset.
            url: returns a fresh presigned URL of a marker's `zip_key`.
            options: how to transfer.
            damaged: the result of `verify`; None verifies first.
            ready: returns the store's ready marker, for a damaged local one.
            waiting: called once if this process has to wait for another one.

        Raises the errors of `download.refetch`. DatasetReplaced means that the zip was retired:
        remove the dataset and get it again.
        """
        from ..download.download import refetch, repair

        path = self._home.existing_folder(key)
        with self._home.changing(path.name, waiting):
            damages = self.verify(key) if damaged is None else list(damaged)
            if ready is not None and any(damage.is_description for damage in damages):
                live, without_readers = ready(), partial(self._home.without_readers, path.name)
                repair(live, path, lambda: url(live), options, without_readers=without_readers)
            elif damages:
                live = read_manifest(path, path.name)
                names = [damage.name for damage in damages]
                refetch(live, path, names, lambda: url(live), options)
        return damages
