"""Keys whose last builder died are built one at a time, so that none is blamed for another.

A key that kills its builder takes down whatever is built beside it, and `takeovers` of all of them
would grow. So of the keys with a dead builder, only one is taken over at a time, and the others
keep their numbers meanwhile. A key that finishes a part is no longer suspected.
"""

from __future__ import annotations

import threading


class Quarantine:
    """Room for one suspected key. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key = ""

    def enter(self, key: str) -> bool:
        """Whether this key may be taken over now; it then stays until it leaves."""
        with self._lock:
            if self._key not in ("", key):
                return False
            self._key = key
            return True

    def leave(self, key: str) -> None:
        """Make room for another key, if this one is in here."""
        with self._lock:
            if self._key == key:
                self._key = ""
