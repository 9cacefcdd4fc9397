"""The interface through which a client reports progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .manifests import Progress


class Observer(Protocol):
    """Gets reports while a client waits for a dataset and downloads it; any may be ignored."""

    def progress(self, progress: Progress) -> None:
        """Report the builder's progress."""

    def transferred(self, done: int, total: int) -> None:
        """Report the bytes downloaded so far, and their total."""

    def note(self, text: str) -> None:
        """Report one line for people."""


class NullObserver:
    """An observer that ignores all reports."""

    def progress(self, progress: Progress) -> None:
        """Do nothing."""

    def transferred(self, done: int, total: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
