"""Notice when raw data change, and write their revision down for people (`raw/<name>.json`).

A hint: builds look at the raw data themselves. With it, `dscache ls` can say which datasets were
built from other raw data than there are now.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from dscache.errors import DscacheError, IntegrityError
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import RawRevision
from dscache.store.objects import Objects

from .hosting.host.raw_revision import survey

log = logging.getLogger("dscache_builder")

SETTLE_S = 5.0
CHANGES = [FileCreatedEvent, FileDeletedEvent, FileMovedEvent, FileClosedEvent]  # not: opened, read


class RawWatch:
    """Watches the raw folders; `publish_settled` is called now and then by the daemon's loop."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        store: Objects,
        executor: Executor,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = dict(folders)
        self._store = store
        self._executor = executor
        self._clock = clock
        self._guard = threading.Lock()
        self._changed_at = dict.fromkeys(folders, clock() - SETTLE_S)  # at first, all are news
        self._observer: BaseObserver = Observer()

    def start(self) -> RawWatch:
        """Begin to watch. A folder that cannot be watched is looked at this once."""
        self._observer.start()  # first: only then does `schedule` itself raise what goes wrong
        for name, folder in self._folders.items():
            try:
                self._observer.schedule(
                    _Changes(lambda name=name: self._changed(name)),  # type: ignore[misc]
                    str(folder),
                    recursive=True,
                    event_filter=CHANGES,
                )
            except OSError as error:
                log.warning("raw data of %s are not watched: %s", name, error)
        return self

    def stop(self) -> None:
        """End watching."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def publish_settled(self) -> None:
        """Have the revisions of folders that have been quiet for a while written down."""
        for name in self.settled():
            self._executor.submit(publish_revision, self._store, name, self._folders[name])

    def settled(self) -> list[str]:
        """Names whose folder changed and has been quiet for SETTLE_S; each change is told once."""
        now = self._clock()
        with self._guard:
            names = [name for name, at in self._changed_at.items() if now - at >= SETTLE_S]
            for name in names:
                del self._changed_at[name]
        return sorted(names)

    def _changed(self, name: str) -> None:
        with self._guard:
            self._changed_at[name] = self._clock()


class _Changes(FileSystemEventHandler):
    def __init__(self, changed: Callable[[], None]) -> None:
        self._report = changed

    def on_any_event(self, event: FileSystemEvent) -> None:  # noqa: ARG002 - watchdog's signature
        self._report()


def publish_revision(store: Objects, name: str, folder: Path) -> None:
    """Write `raw/<name>.json` when the revision is another than it says. Errors are logged."""
    try:
        found = survey(folder)
        if found.revision and found.revision != read_revision(store, name):
            revision = RawRevision(
                revision=found.revision, files=found.files, bytes=found.size, seen_at=store.now()
            )
            store.put(layout.raw(name), manifests.encode(revision))
            log.info("raw data of %s: %d files, revision %s", name, found.files, found.revision)
    except (DscacheError, OSError) as error:
        log.warning("raw data of %s: %s", name, error)


def read_revision(store: Objects, name: str) -> str:
    """The revision that is written down, or ""."""
    where = layout.raw(name)
    stored = store.get(where)
    try:
        return manifests.decode(stored.body, RawRevision, where=where).revision if stored else ""
    except IntegrityError:
        return ""
