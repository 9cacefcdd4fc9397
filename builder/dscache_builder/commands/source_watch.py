"""Notice that source files change, for `dscache-builder try --watch`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

SETTLE_S = 0.2  # editors write a file in several steps
CHANGES = ("created", "deleted", "modified", "moved")
SOURCE_SUFFIXES = (".py", ".toml", ".json", ".yaml", ".yml", ".txt")


class SourcesChanged(Exception):
    """A source file changed: what is running is out of date."""


def is_source(path: str) -> bool:
    """Whether a path is one that authors edit: not a cache, not a hidden file."""
    parts = Path(path).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts[-4:])
    return not hidden and Path(path).suffix in SOURCE_SUFFIXES


class SourceWatch(FileSystemEventHandler):
    """Watches folders and everything below them; use as a context manager."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._changed = threading.Event()
        self._observer = Observer()
        for folder in folders:
            self._observer.schedule(self, str(folder), recursive=True)

    def __enter__(self) -> Self:
        self._observer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._observer.stop()
        self._observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog in its thread."""
        paths = (str(event.src_path), str(event.dest_path))
        if event.event_type in CHANGES and not event.is_directory and any(map(is_source, paths)):
            self._changed.set()

    def check(self) -> None:
        """Raise SourcesChanged when something changed since the last `wait`."""
        if self._changed.is_set():
            raise SourcesChanged

    def wait(self) -> None:
        """Wait for a change, and until no more follow."""
        self._changed.wait()
        while self._changed.is_set():
            self._changed.clear()
            self._changed.wait(SETTLE_S)
