"""The locks of this process's Dataset objects: one for each folder, however many objects there are.

Paths that were given out outlive the object, so a lock stays until every object of its folder is
closed, or the process ends.
"""

from __future__ import annotations

from _thread import allocate_lock  # `threading` takes longer to import than a hit has
from pathlib import Path

from .locks import Hold, share

_mutex = allocate_lock()
_kept: dict[Path, tuple[Hold, int]] = {}


def keep(lock: Path) -> None:
    """Count one object more; the first one takes the lock."""
    mine = share(lock)
    with _mutex:
        hold, count = _kept.get(lock, (mine, 0))
        _kept[lock] = (hold, count + 1)
    if hold is not mine:
        mine.release()


def let_go(lock: Path) -> None:
    """Count one object less; the last one releases the lock."""
    with _mutex:
        hold, count = _kept.pop(lock, (None, 0))
        if hold is not None and count > 1:
            _kept[lock] = (hold, count - 1)
            return
    if hold is not None:
        hold.release()
