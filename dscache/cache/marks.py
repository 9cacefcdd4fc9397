"""Record when datasets were last handed out and which are pinned, as empty files.

A hit imports this, so it imports little.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Marks:
    """The files `used/<key>` and `pins/<key>` below `directory`. `clock` returns Unix time."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._used, self._pins = directory / "used", directory / "pins"
        self._clock = clock

    def mark_used(self, key: str, *, create: bool = False) -> bool:
        """Record that the dataset is handed out now; False if it has no mark and `create` is false.

        If that cannot be written (a full disk, another user's directory), nothing is recorded: the
        dataset is usable all the same.
        """
        path = self._used / key
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
                _touch(path)
            _set_time(path, self._clock())
        except FileNotFoundError:
            return False
        except OSError:
            pass
        return True

    def used_at(self, key: str) -> float | None:
        """Return the Unix time the dataset was last handed out; None if it has no mark.

        A time in the future (of a wrong clock) would protect the dataset until then, so it is
        replaced by the current time.
        """
        path, now = self._used / key, self._clock()
        try:
            modified_at = path.lstat().st_mtime
        except OSError:
            return None
        if modified_at > now:
            with suppress(OSError):
                _set_time(path, now)
        return min(modified_at, now)

    def forget(self, key: str) -> None:
        """Delete the record of when the dataset was handed out."""
        (self._used / key).unlink(missing_ok=True)

    def is_pinned(self, key: str) -> bool:
        """Whether the dataset is pinned."""
        return (self._pins / key).exists()

    def pin(self, key: str) -> None:
        """Pin the dataset; it need not exist."""
        if not self.is_pinned(key):
            self._pins.mkdir(parents=True, exist_ok=True)
            _touch(self._pins / key)

    def unpin(self, key: str) -> None:
        """Remove the pin, if there is one."""
        (self._pins / key).unlink(missing_ok=True)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))


def _set_time(path: Path, now: float) -> None:
    try:
        os.utime(path, (now, now), follow_symlinks=False)
    except PermissionError:  # another user's file: only the current time may be set
        os.utime(path, follow_symlinks=False)
