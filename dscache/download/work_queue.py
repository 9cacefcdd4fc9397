"""What a fetch has still to bring, and which worker brings what.

Runs wait in the order of the zip. One that is opened becomes segments; a worker takes the first
that waits, else opens the next run, else takes the later half of what a slow neighbour has left.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from .concurrency import piece_count, worth_sharing
from .segments import Run, Segment


class WorkQueue:
    """The segments of some runs, for several threads. `changed` is its lock, and is notified when
    something waits for a worker.

    `share_bytes`: larger segments are cut into equal ones before they begin; None cuts none.

    Attributes:
        done: bytes of members that are on the disk, what was there before included.
        received: bytes that have come.
        range_bytes_per_s: what one range brings; None while that is not known.
    """

    def __init__(
        self, runs: Iterable[Run], changed: threading.Condition, share_bytes: int | None
    ) -> None:
        self._changed = changed
        self._share_bytes = share_bytes
        self._queue = deque(runs)
        self._open: set[Run] = set()
        self._waiting: deque[Segment] = deque()  # for a worker
        self._active: list[Segment] = []  # with one
        self._ended = False
        self.done = self.received = 0
        self.range_bytes_per_s: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether something waits for a worker."""
        return not self._ended and bool(self._waiting or self._queue)

    def openings(self) -> int:
        """How many more workers would find something to do."""
        with self._changed:
            if self._ended:
                return 0
            shared = sum(map(self._may_share, self._active))
            return len(self._queue) + len(self._waiting) + shared

    def next(self) -> Segment | None:
        """What a worker fetches next; None when there is nothing left for it. Raises NoSpace."""
        while True:
            with self._changed:
                if self._ended:
                    return None
                if self._waiting or not self._queue:
                    segment = self._waiting.popleft() if self._waiting else self._share()
                    if segment is not None:
                        self._active.append(segment)
                    return segment
                run = self._queue.popleft()
                self._open.add(run)
            self._begin(run)

    def advance(self, segment: Segment, received: int, kept: int) -> None:
        """So many bytes of the segment have come, of which members `kept` some."""
        with self._changed:
            segment.position += received
            self.received += received
            self.done += kept

    def end(self, segment: Segment) -> None:
        """The segment has come as a whole. Raises what settling its members raises."""
        with self._changed:
            self._active.remove(segment)
            last = segment.run.ended()
        if last:
            self._finish(segment.run)

    def again(self, run: Run, size: int) -> None:
        """Fetch a run once more, of which `size` bytes were done."""
        with self._changed:
            self.done -= size
            self._queue.appendleft(run)

    def stop(self) -> None:
        """Give out nothing from now on."""
        with self._changed:
            self._ended = True

    def close(self) -> None:
        """Close the files that are open, once no worker writes any more."""
        for run in self._open:
            run.close()

    def _begin(self, run: Run) -> None:
        there, segments = run.open()
        if self._share_bytes is not None and run.shareable:
            segments = [cut for whole in segments for cut in _split(whole, self._share_bytes)]
        with self._changed:
            self.done += there
            self._waiting.extend(segments)
            self._changed.notify_all()
        if not segments:
            self._finish(run)

    def _finish(self, run: Run) -> None:
        run.finish()
        with self._changed:
            self._open.discard(run)

    def _share(self) -> Segment | None:
        """Half of what the worker with most to do has left, if it is slow. Under the lock, like
        every advance: what it is receiving ends long before the cut."""
        shareable = filter(self._may_share, self._active)
        longest = max(shareable, key=lambda segment: segment.left, default=None)
        return None if longest is None else longest.run.cut(longest, longest.left // 2)

    def _may_share(self, segment: Segment) -> bool:
        rate = self.range_bytes_per_s
        return rate is not None and segment.run.shareable and worth_sharing(segment.left, rate)


def _split(whole: Segment, share_bytes: int) -> list[Segment]:
    """A segment that has not begun in equal pieces of about `share_bytes`, in order."""
    divided = [whole]
    for count in range(piece_count(whole.left, share_bytes), 1, -1):
        last = divided[-1]
        divided.append(last.run.cut(last, last.left // count))
    return divided
