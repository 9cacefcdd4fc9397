"""What a fetch has still to bring, and which worker brings what.

Runs wait in the order of the zip. One that is opened becomes stretches; a worker takes the first
that waits, else opens the next run, else takes the later half of what a slow neighbour has left.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from .concurrency import pieces, worth_sharing
from .segments import Run, Stretch


class Supply:
    """The stretches of some runs, for several threads. `changed` is its lock, and is notified when
    something waits for a worker.

    `share_bytes`: larger stretches are cut into equal ones before they begin; None cuts none.

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
        self._waiting: deque[Stretch] = deque()  # for a worker
        self._active: list[Stretch] = []  # with one
        self._ended = False
        self.done = self.received = 0
        self.range_bytes_per_s: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether something waits for a worker."""
        return not self._ended and bool(self._waiting or self._queue)

    def chances(self) -> int:
        """How many more workers would find something to do."""
        with self._changed:
            if self._ended:
                return 0
            shared = sum(map(self._may_share, self._active))
            return len(self._queue) + len(self._waiting) + shared

    def next(self) -> Stretch | None:
        """What a worker fetches next; None when there is nothing left for it. Raises NoSpace."""
        while True:
            with self._changed:
                if self._ended:
                    return None
                if self._waiting or not self._queue:
                    stretch = self._waiting.popleft() if self._waiting else self._share()
                    if stretch is not None:
                        self._active.append(stretch)
                    return stretch
                run = self._queue.popleft()
                self._open.add(run)
            self._begin(run)

    def advance(self, stretch: Stretch, received: int, kept: int) -> None:
        """So many bytes of the stretch have come, of which members `kept` some."""
        with self._changed:
            stretch.position += received
            self.received += received
            self.done += kept

    def end(self, stretch: Stretch) -> None:
        """The stretch has come as a whole. Raises what settling its members raises."""
        with self._changed:
            self._active.remove(stretch)
            last = stretch.run.ended()
        if last:
            self._finish(stretch.run)

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
        there, stretches = run.open()
        if self._share_bytes is not None and run.shareable:
            stretches = [cut for whole in stretches for cut in _divided(whole, self._share_bytes)]
        with self._changed:
            self.done += there
            self._waiting.extend(stretches)
            self._changed.notify_all()
        if not stretches:
            self._finish(run)

    def _finish(self, run: Run) -> None:
        run.finish()
        with self._changed:
            self._open.discard(run)

    def _share(self) -> Stretch | None:
        """Half of what the worker with most to do has left, if it is slow. Under the lock, like
        every advance: what it is receiving ends long before the cut."""
        chances = filter(self._may_share, self._active)
        longest = max(chances, key=lambda stretch: stretch.left, default=None)
        return None if longest is None else longest.run.cut(longest, longest.left // 2)

    def _may_share(self, stretch: Stretch) -> bool:
        rate = self.range_bytes_per_s
        return rate is not None and stretch.run.shareable and worth_sharing(stretch.left, rate)


def _divided(whole: Stretch, share_bytes: int) -> list[Stretch]:
    """A stretch that has not begun in equal pieces of about `share_bytes`, in order."""
    divided = [whole]
    for count in range(pieces(whole.left, share_bytes), 1, -1):
        last = divided[-1]
        divided.append(last.run.cut(last, last.left // count))
    return divided
