"""Watch source files for changes, for `dscache-builder try --watch`."""

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
    """A source file changed: the current try is out of date."""


def is_source(path: str) -> bool:
    """Whether authors edit a file of this name: not a cache, not a hidden file."""
    parts = Path(path).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts[-4:])
    return not hidden and Path(path).suffix in SOURCE_SUFFIXES


class SourceWatch(FileSystemEventHandler):
    """Watches folders and their subfolders; use it as a context manager."""

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
        """Note a change; watchdog calls this in its thread."""
        paths = (str(event.src_path), str(event.dest_path))
        if event.event_type in CHANGES and not event.is_directory and any(map(is_source, paths)):
            self._changed.set()

    def check(self) -> None:
        """Raise SourcesChanged if a source file has changed since the last `wait`."""
        if self._changed.is_set():
            raise SourcesChanged

    def wait(self) -> None:
        """Wait for a change, then until the files have settled."""
        self._changed.wait()
        while self._changed.is_set():
            self._changed.clear()
            self._changed.wait(SETTLE_S)
