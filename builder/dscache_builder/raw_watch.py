"""Watch the raw data, and publish its revision as a hint (`raw/<name>.json`).

Builds survey the raw data themselves. The hint lets `dscache ls` mark datasets that were built from
an older revision.
"""

from __future__ import annotations

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

from dscache.errors import DscacheError
from dscache.protocol import layout, manifests, markers
from dscache.protocol.manifests import RawRevision
from dscache.store.objects import Objects
from dscache.terminal import logger

from .hosting.host.raw_revision import survey

log = logger("dscache_builder")

SETTLE_S = 5.0
CHANGES = [FileCreatedEvent, FileDeletedEvent, FileMovedEvent, FileClosedEvent]  # not: opened, read


class RawWatch:
    """Watches the raw folders; the daemon's loop calls `publish_settled`."""

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
        self._changed_at = dict.fromkeys(folders, clock() - SETTLE_S)  # survey all at start
        self._observer: BaseObserver = Observer()

    def start(self) -> RawWatch:
        """Begin to watch. A folder that cannot be watched is surveyed once, at start."""
        self._observer.start()  # first: only then does `schedule` itself raise errors
        for name, folder in self._folders.items():
            try:
                self._observer.schedule(
                    _Changes(lambda name=name: self._changed(name)),  # type: ignore[misc]
                    str(folder),
                    recursive=True,
                    event_filter=CHANGES,
                )
            except OSError as error:
                log.warning("raw data of %s is not watched: %s", name, error)
        return self

    def stop(self) -> None:
        """Stop watching."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def publish_settled(self) -> None:
        """Publish the revisions of folders that have settled since a change."""
        for name in self.settled():
            self._executor.submit(publish_revision, self._store, name, self._folders[name])

    def settled(self) -> list[str]:
        """Names of the folders that have settled for SETTLE_S since a change, each once."""
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
    """Write `raw/<name>.json` if the revision has changed. Errors are logged."""
    try:
        current = survey(folder)
        if current.revision and current.revision != read_revision(store, name):
            revision = RawRevision(
                revision=current.revision,
                files=current.files,
                bytes=current.size,
                seen_at=store.now(),
            )
            store.put(layout.raw(name), manifests.encode(revision))
            log.info("raw data of %s: %d files, revision %s", name, current.files, current.revision)
    except (DscacheError, OSError) as error:
        log.warning("raw data of %s: %s", name, error)


def read_revision(store: Objects, name: str) -> str:
    """The published revision, or ""."""
    stored = markers.read_raw_revision(store, name)
    return stored.revision if stored else ""
