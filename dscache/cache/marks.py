"""When the datasets of a home were last handed out, and which are pinned: empty files.

Light: a hit imports this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Marks:
    """`used/<key>` and `pins/<key>` below one directory. `clock` gives Unix time."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._used, self._pins = directory / "used", directory / "pins"
        self._clock = clock

    def mark(self, key: str, *, create: bool = False) -> bool:
        """Note that the dataset is handed out now; False when it has no mark yet.

        Where that cannot be written (a full disk, a directory of others) nothing is noted: nobody
        is to go without his dataset for that.
        """
        path = self._used / key
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            _set_time(path, self._clock())
        except FileNotFoundError:
            return False
        except OSError:
            pass
        return True

    def used_at(self, key: str) -> float | None:
        """Unix time the dataset was last handed out, None when that was not noted.

        A time in the future (of a wrong clock) would protect the dataset until it comes: it is
        taken for now, and becomes that.
        """
        path, now = self._used / key, self._clock()
        try:
            found = path.stat().st_mtime
        except OSError:
            return None
        if found > now:
            with suppress(OSError):
                _set_time(path, now)
        return min(found, now)

    def forget(self, key: str) -> None:
        """Remove the note of when the dataset was handed out."""
        (self._used / key).unlink(missing_ok=True)

    def pinned(self, key: str) -> bool:
        """Whether the dataset is pinned."""
        return (self._pins / key).exists()

    def pin(self, key: str) -> None:
        """Pin it; it need not be there."""
        if not self.pinned(key):
            self._pins.mkdir(parents=True, exist_ok=True)
            (self._pins / key).touch()

    def unpin(self, key: str) -> None:
        """Take the pin away, if there is one."""
        (self._pins / key).unlink(missing_ok=True)


def _set_time(path: Path, now: float) -> None:
    try:
        os.utime(path, (now, now))
    except PermissionError:  # another user's: who may write to it may set it to this moment only
        os.utime(path)
