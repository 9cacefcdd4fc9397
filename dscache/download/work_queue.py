"""Distribute the bytes to fetch among the workers.

Runs are queued in zip order. Opening a run yields segments. A worker takes the first queued
segment; if there is none it opens the next run; if there is none it takes the second half of what
a slow worker has left.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from .concurrency import piece_count, worth_sharing
from .segments import Run, Segment


class WorkQueue:
    """The segments of some runs. Thread-safe.

    Args:
        runs: the runs to fetch, in zip order.
        changed: used as the lock, and notified when a segment is ready for a worker.
        share_bytes: larger segments are cut into equal parts before they start; None cuts none.

    Attributes:
        done: bytes of members on disk, including those that were there before.
        received: bytes received.
        range_bytes_per_s: throughput of one range; None while unknown.
    """

    def __init__(
        self, runs: Iterable[Run], changed: threading.Condition, share_bytes: int | None
    ) -> None:
        self._changed = changed
        self._share_bytes = share_bytes
        self._unopened = deque(runs)
        self._open_runs: set[Run] = set()
        self._ready: deque[Segment] = deque()
        self._active: list[Segment] = []
        self._stopped = False
        self.done = self.received = 0
        self.range_bytes_per_s: float | None = None

    @property
    def has_work(self) -> bool:
        """Whether a run or segment has no worker yet."""
        return not self._stopped and bool(self._ready or self._unopened)

    def openings(self) -> int:
        """Return the number of additional workers that would have something to do."""
        with self._changed:
            if self._stopped:
                return 0
            shareable = sum(map(self._may_share, self._active))
            return len(self._unopened) + len(self._ready) + shareable

    def next(self) -> Segment | None:
        """Return the next segment for a worker; None if there is none left. Raises NoSpace."""
        while True:
            with self._changed:
                if self._stopped:
                    return None
                if self._ready or not self._unopened:
                    segment = self._ready.popleft() if self._ready else self._share()
                    if segment is not None:
                        self._active.append(segment)
                    return segment
                run = self._unopened.popleft()
                self._open_runs.add(run)
            self._open_run(run)

    def advance(self, segment: Segment, received: int, kept: int) -> None:
        """Note that bytes of a segment were received, of which `kept` belong to members."""
        with self._changed:
            segment.position += received
            self.received += received
            self.done += kept

    def end(self, segment: Segment) -> None:
        """Note that a segment has arrived completely. Raises the errors of `Run.finish`."""
        with self._changed:
            self._active.remove(segment)
            is_last = segment.run.end_segment()
        if is_last:
            self._finish(segment.run)

    def requeue(self, run: Run, size: int) -> None:
        """Fetch a run again, `size` bytes of which counted as done."""
        with self._changed:
            self.done -= size
            self._unopened.appendleft(run)

    def stop(self) -> None:
        """Hand out no more segments."""
        with self._changed:
            self._stopped = True

    def close(self) -> None:
        """Close the open files; only when no worker is writing."""
        for run in self._open_runs:
            run.close()

    def _open_run(self, run: Run) -> None:
        present_bytes, segments = run.open()
        if self._share_bytes is not None and run.shareable:
            segments = [part for segment in segments for part in _split(segment, self._share_bytes)]
        with self._changed:
            self.done += present_bytes
            self._ready.extend(segments)
            self._changed.notify_all()
        if not segments:
            self._finish(run)

    def _finish(self, run: Run) -> None:
        run.finish()
        with self._changed:
            self._open_runs.discard(run)

    def _share(self) -> Segment | None:
        """Return half of what the worker with the most missing bytes has left, if it is slow.

        Called with the lock held, as `advance` is: what that worker is receiving now ends long
        before the cut.
        """
        shareable = filter(self._may_share, self._active)
        longest = max(shareable, key=lambda segment: segment.left, default=None)
        return None if longest is None else longest.run.cut(longest, longest.left // 2)

    def _may_share(self, segment: Segment) -> bool:
        rate = self.range_bytes_per_s
        return rate is not None and segment.run.shareable and worth_sharing(segment.left, rate)


def _split(segment: Segment, share_bytes: int) -> list[Segment]:
    """Cut a segment that has not started into equal parts of about `share_bytes`, in order."""
    parts = [segment]
    for count in range(piece_count(segment.left, share_bytes), 1, -1):
        last = parts[-1]
        parts.append(last.run.cut(last, last.left // count))
    return parts
