"""Sync finished files in the background, so that receiving does not wait for the disk.

Several at a time: the file system commits concurrent syncs together, which makes a dataset of many
small files fast.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from .partfile import PartFile

SYNC_THREADS = 4
MAX_PENDING = 64  # open files; if the disk is slower than the network, `submit` waits


class Syncer:
    """Publishes checked part files in background threads. `submit` is thread-safe."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="dscache-sync")
        self._slots = threading.BoundedSemaphore(MAX_PENDING)
        self._stopped = threading.Event()
        self._error: BaseException | None = None

    def submit(self, part: PartFile) -> None:
        """Take ownership of a checked part file; waits while too many are pending.

        Raises the first error of an earlier file.
        """
        self._slots.acquire()
        if self._error is not None:
            self._slots.release()
            part.close()
            raise self._error
        self._pool.submit(self._publish, part)

    def finish(self) -> None:
        """Wait until all files are published, and close. Raises NoSpace, OSError."""
        self.close()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Publish no more files: leave them as `.part` files, to be resumed."""
        self._stopped.set()

    def close(self) -> None:
        """Wait for the files already submitted; closing twice is fine."""
        self._pool.shutdown()

    def _publish(self, part: PartFile) -> None:
        try:
            if not self._stopped.is_set():
                part.publish()
        except BaseException as error:  # noqa: BLE001  raised in the calling thread
            self._error = self._error or error
        finally:
            part.close()
            self._slots.release()
