"""Sync finished files in the background, so that receiving never waits for the disk.

Several at a time: the file system commits neighbouring syncs together, which is what makes a
dataset of many small files quick.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from .partfile import PartFile

SYNC_THREADS = 4
MAX_WAITING = 64  # files held open; a disk that is slower than the network slows the network here


class Syncer:
    """Publishes checked part files. `submit` from any thread, until `close`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="dscache-sync")
        self._room = threading.BoundedSemaphore(MAX_WAITING)
        self._dropped = threading.Event()
        self._error: BaseException | None = None

    def submit(self, part: PartFile) -> None:
        """Take over a part file whose sums are right; waits while too many are under way.

        Raises the error that an earlier one met.
        """
        self._room.acquire()
        if self._error is not None:
            self._room.release()
            part.close()
            raise self._error
        self._pool.submit(self._publish, part)

    def finish(self) -> None:
        """Wait until all are on the disk, and close. Raises the first error (NoSpace, OSError)."""
        self.close()
        if self._error is not None:
            raise self._error

    def drop(self) -> None:
        """From now on leave them unsynced, as `.part` files to be resumed."""
        self._dropped.set()

    def close(self) -> None:
        """Wait for what was submitted. Closing twice is fine."""
        self._pool.shutdown()

    def _publish(self, part: PartFile) -> None:
        try:
            if not self._dropped.is_set():
                part.publish()
        except BaseException as error:  # noqa: BLE001  carried to the thread that asked
            self._error = self._error or error
        finally:
            part.close()
            self._room.release()
