"""Fetch members of a zip into a folder: several ranges at once, retried, checked.

Workers take runs (see `selection.plan_runs`) from a queue, in zip order; one that finds the queue
empty takes the later half of what a slow neighbour has still to fetch. The thread that asked does
not transfer: it reports progress, starts more workers while that helps, and stops them.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import IntegrityError, StoreUnreachable
from .finisher import Finisher
from .holding import PART_SUFFIX
from .manifests import Member
from .pacing import (
    FAR_RANGE_BYTES_PER_S,
    FIRST_RANGES,
    MAX_RANGES,
    Look,
    backoff_s,
    far,
    long_enough,
    pieces,
    ranges_wanted,
    worth_sharing,
)
from .partfile import PartFile
from .ranges import Interrupted, RangeReader, Source
from .selection import plan_runs
from .stretches import Run, Stretch, run_of

Progress = Callable[[int, int], None]

REPORT_S = 0.1
MAX_FAILURES = 8
ADVANCE_BYTES = 64 << 10
HALT_S = 6.0  # an attempt to connect may last 5 s; whoever wakes later writes nothing any more


@dataclass(frozen=True)
class Options:
    """How to fetch. `parallel` None adapts the number of ranges; `sleep` None is a wait that ends
    when the fetch does; `jitter` gives numbers in [0, 1)."""

    parallel: int | None = None
    progress: Progress | None = None
    stall_s: float = 30.0
    sleep: Callable[[float], object] | None = None
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)


class _Stopped(Exception):
    """Another worker failed, or the caller was interrupted."""


class Fetch:
    """One fetch of some members; use `run` once.

    Members already in the folder, whole or as `.part`, are checked and completed.
    """

    def __init__(
        self, source: Source, members: Sequence[Member], folder: Path, options: Options
    ) -> None:
        self._source, self._folder, self._options = source, folder, options
        self._total = sum(member.size for member in members)
        ordered = sorted(members, key=lambda member: member.offset)
        self._queue = deque(
            run_of(folder, self._settle, run) for run in plan_runs(ordered, alone=_begun(folder))
        )
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._finisher = Finisher()
        self._threads: list[threading.Thread] = []
        self._readers: list[RangeReader] = []
        self._runs: set[Run] = set()  # that are open
        self._waiting: deque[Stretch] = deque()  # of those, without a worker
        self._active: list[Stretch] = []  # with one
        self._working = 0
        self._wanted = options.parallel or FIRST_RANGES
        self._adapting = options.parallel is None
        self._done = 0
        self._received = 0
        self._range_bytes_per_s: float | None = None  # what a range brings; None: not known yet
        self._damaged: set[str] = set()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Fetch all of it, or raise the first error; then everything right is kept for resuming.

        Raises IntegrityError (wrong bytes twice), DatasetReplaced, AccessDenied, NoSpace,
        StoreUnreachable (after 8 failures in a row without advance), StoreError.
        """
        try:
            self._add_workers()
            self._oversee()
            if self._error is not None:
                raise self._error
            self._finisher.finish()
        finally:
            self._halt()
        self._report()

    # -- the thread that asked

    def _oversee(self) -> None:
        looks: list[Look] = []
        since, before = self._options.clock(), 0
        while not self._wait():
            self._report()
            seconds, received = self._options.clock() - since, self._received - before
            working = max(self._working, 1)
            if long_enough(seconds, received, working):
                look = Look(working, received / seconds)
                self._range_bytes_per_s = look.bytes_per_s / working
                if self._adapting and working == self._wanted:
                    looks.append(look)
                    self._wanted = ranges_wanted(looks)
                    self._adapting = self._wanted > working
                since, before = self._options.clock(), self._received
            self._add_workers()

    def _wait(self) -> bool:
        """Wait for the end, a moment at most, less if there is work for another worker; whether the
        end has come."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._working == 0 or self._hungry(),
                timeout=REPORT_S,
            )
            return self._working == 0

    def _hungry(self) -> bool:
        """Whether more workers are wanted than there are, and something waits for one."""
        if self._stop.is_set() or self._working >= self._wanted:
            return False
        return bool(self._waiting or self._queue)

    def _report(self) -> None:
        if self._options.progress is not None:
            self._options.progress(self._done, self._total)

    def _halt(self) -> None:
        self._stop.set()
        self._finisher.drop()
        for reader in list(self._readers):
            reader.abort()
        for thread in self._threads:
            thread.join(timeout=HALT_S)
        for run in self._runs:
            run.close()
        self._finisher.close()

    def _add_workers(self) -> None:
        """Start as many as are wanted, if there is something for each of them to do."""
        for _ in range(min(self._wanted - self._working, self._chances())):
            reader = RangeReader(self._source, self._options.stall_s)
            thread = threading.Thread(
                target=self._work, args=(reader,), name=f"dscache-range-{len(self._threads)}"
            )
            thread.daemon = True
            with self._changed:
                self._working += 1
            self._readers.append(reader)
            self._threads.append(thread)
            thread.start()

    def _chances(self) -> int:
        with self._changed:
            shared = sum(self._may_share(stretch) for stretch in self._active)
            return 0 if self._stop.is_set() else len(self._queue) + len(self._waiting) + shared

    # -- workers

    def _work(self, reader: RangeReader) -> None:
        try:
            while (stretch := self._next()) is not None:
                self._fetch(reader, stretch)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  carried to the thread that asked
            self._fail(error)
        finally:
            reader.close()
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
        self._stop.set()
        for reader in list(self._readers):
            reader.abort()

    def _next(self) -> Stretch | None:
        """What to fetch next: the rest of what is begun, the next run, a neighbour's half."""
        while True:
            with self._changed:
                if self._stop.is_set():
                    return None
                if self._waiting or not self._queue:
                    stretch = self._waiting.popleft() if self._waiting else self._share()
                    if stretch is not None:
                        self._active.append(stretch)
                    return stretch
                run = self._queue.popleft()
                self._runs.add(run)
            self._begin(run)

    def _begin(self, run: Run) -> None:
        """Open a run; its stretches wait for workers, this one first of all."""
        there, stretches = run.open()
        with self._changed:
            self._done += there
            if self._options.parallel is not None:
                self._divide(stretches)
            self._waiting.extend(stretches)
            self._changed.notify_all()
        if not stretches:
            self._finish(run)

    def _divide(self, stretches: list[Stretch]) -> None:
        """Cut what is larger than the share of each range that was asked for."""
        for stretch in list(stretches):
            rest = stretch
            for count in range(pieces(stretch.left, self._total, self._wanted), 1, -1):
                if rest.run.shareable:
                    rest = rest.run.cut(rest, rest.left // count)
                    stretches.append(rest)

    def _share(self) -> Stretch | None:
        """Half of what the worker with most to do has left, if it is slow. Under the lock, like
        every advance: what it is receiving ends long before the cut."""
        chances = [stretch for stretch in self._active if self._may_share(stretch)]
        if not chances:
            return None
        longest = max(chances, key=lambda stretch: stretch.left)
        return longest.run.cut(longest, longest.left // 2)

    def _may_share(self, stretch: Stretch) -> bool:
        rate = self._range_bytes_per_s
        return rate is not None and stretch.run.shareable and worth_sharing(stretch.left, rate)

    def _fetch(self, reader: RangeReader, stretch: Stretch) -> None:
        """Bring a stretch onto the disk, with retries."""
        failures = 0
        while stretch.left > 0:
            start = stretch.position
            try:
                self._receive(reader, stretch)
            except Interrupted as error:
                self._check_stop()
                failures = 1 if stretch.position - start >= ADVANCE_BYTES else failures + 1
                self._pause(failures, error)
        with self._changed:
            self._active.remove(stretch)
            last = stretch.run.ended()
        if last:
            self._finish(stretch.run)

    def _receive(self, reader: RangeReader, stretch: Stretch) -> None:
        """One request. Another worker may take the later half of the stretch meanwhile: then it is
        broken off where that begins."""
        asked_for = stretch.stop
        with contextlib.closing(reader.read(stretch.position, asked_for)) as pieces:
            for data in pieces:
                self._check_stop()
                if self._received == 0:
                    self._note_distance(reader)
                data = data[: stretch.left]
                taken = stretch.run.write(data, stretch.position)
                with self._changed:
                    stretch.position += len(data)
                    self._received += len(data)
                    self._done += taken
                if stretch.left <= 0 and stretch.stop < asked_for:
                    return

    def _note_distance(self, reader: RangeReader) -> None:
        with self._changed:
            if self._adapting and far(reader.answer_s):
                self._wanted, self._adapting = MAX_RANGES, False
                self._range_bytes_per_s = FAR_RANGE_BYTES_PER_S
                self._changed.notify_all()

    def _finish(self, run: Run) -> None:
        run.finish()
        with self._changed:
            self._runs.discard(run)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _pause(self, failures: int, error: Interrupted) -> None:
        if failures > MAX_FAILURES:
            raise StoreUnreachable(
                f"{self._source.name}: {failures} attempts in a row brought nothing: {error}; "
                "what has arrived is kept: get it again to go on"
            ) from error
        (self._options.sleep or self._stop.wait)(backoff_s(failures, self._options.jitter()))
        self._check_stop()

    def _settle(self, part: PartFile) -> None:
        """Compare a member that has come with the table; a damaged one is fetched once more.

        Raises IntegrityError when it is damaged for the second time.
        """
        if part.check():
            self._finisher.submit(part)
            return
        part.close()
        member = part.member
        if member.name in self._damaged:
            raise IntegrityError(
                f"{member.name} in {self._source.name}: its bytes are not what the ready "
                f"marker says (expected crc32 {member.crc32:08x}, BLAKE3 {member.digest}), "
                "twice; the copy in the store is damaged: have the dataset retired and "
                "built again"
            )
        with self._changed:
            self._damaged.add(member.name)
            self._done -= member.size
            self._queue.appendleft(run_of(self._folder, self._settle, [member]))


def _begun(folder: Path) -> set[str]:
    """Names of the members an earlier process began or finished in the folder."""
    return {path.name.removesuffix(PART_SUFFIX) for path in folder.iterdir()}
