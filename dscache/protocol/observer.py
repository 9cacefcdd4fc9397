"""Who is told what goes on while one waits for a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .manifests import Progress


class Observer(Protocol):
    """Is told what goes on while one waits. All methods may do nothing."""

    def progress(self, progress: Progress) -> None:
        """The builder's progress."""

    def transferred(self, done: int, total: int) -> None:
        """Bytes downloaded, of how many."""

    def note(self, text: str) -> None:
        """A line for people."""


class NullObserver:
    """The observer that tells nobody."""

    def progress(self, progress: Progress) -> None:
        """Nothing."""

    def transferred(self, done: int, total: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
