"""Fetch members of a zip into a folder: several ranges at once, retried, checked.

Workers take runs (see `selection.plan_runs`) from a queue, in zip order. The thread that asked does
not transfer: it reports progress, starts more workers while that helps, and stops them.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import IntegrityError, StoreUnreachable
from .finisher import Finisher
from .holding import PART_SUFFIX
from .manifests import Member
from .partfile import PartFile
from .ranges import Interrupted, RangeReader, Source
from .selection import plan_runs

Progress = Callable[[int, int], None]

MAX_RANGES = 8
FIRST_RANGES = 2
FAST_RANGE_BYTES_PER_S = 200_000_000  # from here on a second range only costs CPU time
WORTHWHILE_GAIN = 1.15
LOOK_S = 1.5
REPORT_S = 0.1
MAX_FAILURES = 8
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 10.0
ADVANCE_BYTES = 64 << 10
HALT_S = 6.0  # an attempt to connect may last 5 s; whoever wakes later writes nothing any more


def backoff_s(failure: int, jitter: float) -> float:
    """Seconds to wait after the `failure`th failure in a row (from 1); `jitter` is in [0, 1).

    Between half and all of 0.25 s, 0.5 s, 1 s … 10 s, so that clients of a store that was down do
    not come back in step.
    """
    return min(FIRST_BACKOFF_S * 2.0 ** (failure - 1), MAX_BACKOFF_S) * (0.5 + jitter / 2)


def one_more(rates: Sequence[float], ranges: int) -> bool:
    """Whether to add a range. `rates` are bytes/s, one for each number of ranges tried so far.

    It pays where a single connection is limited (distance, shaping), and is harmless elsewhere:
    the first one is tried unless a range is fast already, further ones while the last one helped.
    """
    if ranges >= MAX_RANGES or rates[-1] / ranges >= FAST_RANGE_BYTES_PER_S:
        return False
    return len(rates) == 1 or rates[-1] >= WORTHWHILE_GAIN * rates[-2]


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
        self._queue = deque(plan_runs(ordered, alone=_begun(folder)))
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._finisher = Finisher()
        self._threads: list[threading.Thread] = []
        self._readers: list[RangeReader] = []
        self._working = 0
        self._done = 0
        self._received = 0
        self._damaged: set[str] = set()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Fetch all of it, or raise the first error; then everything right is kept for resuming.

        Raises IntegrityError (wrong bytes twice), DatasetReplaced, AccessDenied, NoSpace,
        StoreUnreachable (after 8 failures in a row without advance), StoreError.
        """
        wanted = self._options.parallel or FIRST_RANGES
        try:
            for _ in range(min(wanted, len(self._queue))):
                self._add_worker()
            self._oversee()
            if self._error is not None:
                raise self._error
            self._finisher.finish()
        finally:
            self._halt()
        self._report()

    def _oversee(self) -> None:
        rates: list[float] = []
        adapting = self._options.parallel is None
        since, before = self._options.clock(), 0
        while not self._wait():
            self._report()
            now = self._options.clock()
            if adapting and now - since >= LOOK_S:
                rates.append((self._received - before) / (now - since))
                adapting = bool(self._queue) and one_more(rates, len(self._threads))
                since, before = now, self._received
                if adapting:
                    self._add_worker()

    def _wait(self) -> bool:
        """Wait for the end, a moment at most; whether it has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self._working == 0, timeout=REPORT_S)

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
        self._finisher.close()

    def _add_worker(self) -> None:
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

    def _work(self, reader: RangeReader) -> None:
        try:
            while (run := self._next()) is not None:
                self._fetch(reader, run)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  carried to the thread that asked
            self._fail(error)
        finally:
            reader.close()
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _next(self) -> list[Member] | None:
        with self._changed:
            return self._queue.popleft() if self._queue and not self._stop.is_set() else None

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
        self._stop.set()
        for reader in list(self._readers):
            reader.abort()

    def _fetch(self, reader: RangeReader, run: Sequence[Member]) -> None:
        """Bring a run onto the disk, with retries; damaged members go back into the queue."""
        writer = _RunWriter(self._folder, run, self._finisher, self._count)
        failures = 0
        try:
            writer.begin(reader.buffer)
            while not writer.complete:
                start = writer.position
                try:
                    for data in reader.read(start, writer.stop):
                        self._check_stop()
                        self._received += len(data)  # a hint for pacing: races lose a little
                        writer.write(data)
                except Interrupted as error:
                    self._check_stop()
                    failures = 1 if writer.position - start >= ADVANCE_BYTES else failures + 1
                    self._pause(failures, error)
        finally:
            writer.close()
        self._again(writer.damaged)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _count(self, size: int) -> None:
        with self._changed:
            self._done += size

    def _pause(self, failures: int, error: Interrupted) -> None:
        if failures > MAX_FAILURES:
            raise StoreUnreachable(
                f"{self._source.name}: {failures} attempts in a row brought nothing: {error}; "
                "what has arrived is kept: get it again to go on"
            ) from error
        (self._options.sleep or self._stop.wait)(backoff_s(failures, self._options.jitter()))
        self._check_stop()

    def _again(self, damaged: Collection[Member]) -> None:
        """Queue damaged members once more. Raises IntegrityError for the second time."""
        for member in damaged:
            if member.name in self._damaged:
                raise IntegrityError(
                    f"{member.name} in {self._source.name}: its bytes are not what the ready "
                    f"marker says (expected crc32 {member.crc32:08x}, BLAKE3 {member.digest}), "
                    "twice; the copy in the store is damaged: have the dataset retired and "
                    "built again"
                )
            with self._changed:
                self._damaged.add(member.name)
                self._queue.appendleft([member])


class _RunWriter:
    """Spreads the bytes of a range over the members in it; bytes between them are dropped."""

    def __init__(
        self,
        folder: Path,
        members: Sequence[Member],
        finisher: Finisher,
        count: Callable[[int], None],
    ) -> None:
        self._folder, self._finisher, self._count = folder, finisher, count
        self._left = deque(members)
        self._part: PartFile | None = None
        self.position = members[0].offset
        self.stop = members[-1].offset + members[-1].size
        self.damaged: list[Member] = []

    @property
    def complete(self) -> bool:
        return not self._left

    def begin(self, buffer: memoryview) -> None:
        """Open the first member, and go on where its `.part` ends."""
        self._part = PartFile(self._folder, self._left[0])
        found = self._part.resume(buffer)
        self._count(found)
        self.position += found
        self._settle()

    def write(self, data: memoryview) -> None:
        """Take the bytes at `position`."""
        while data:
            member = self._left[0]
            gap = min(member.offset - self.position, len(data))
            if gap > 0:
                self.position += gap
                data = data[gap:]
                continue
            taken = min(member.offset + member.size - self.position, len(data))
            self._open().write(data[:taken])
            self._count(taken)
            self.position += taken
            data = data[taken:]
            self._settle()

    def close(self) -> None:
        if self._part is not None:
            self._part.close()

    def _open(self) -> PartFile:
        if self._part is None:
            self._part = PartFile(self._folder, self._left[0])
        return self._part

    def _settle(self) -> None:
        """Finish the member whose end was reached."""
        member, part = self._left[0], self._open()
        if part.size < member.size:
            return
        self._left.popleft()
        self._part = None
        if part.check():
            self._finisher.submit(part)
        else:
            part.close()
            self._count(-member.size)
            self.damaged.append(member)


def _begun(folder: Path) -> set[str]:
    """Names of the members an earlier process began or finished in the folder."""
    return {path.name.removesuffix(PART_SUFFIX) for path in folder.iterdir()}
