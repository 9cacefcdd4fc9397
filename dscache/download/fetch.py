"""Fetch members of a zip into a folder: several ranges at once, retried, checked.

Workers take what they fetch from a `WorkQueue`. The thread that asked does not transfer: it reports
progress, starts more workers while that helps, and stops them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import IntegrityError, StoreUnreachable
from ..folder.contents import PART_SUFFIX
from ..protocol.manifests import Member
from .concurrency import (
    DISTANT_RANGE_BYTES_PER_S,
    FIRST_RANGES,
    MAX_RANGES,
    Measurement,
    backoff_s,
    is_conclusive,
    is_distant,
    ranges_wanted,
)
from .options import TransferOptions
from .partfile import PartFile
from .ranges import Interrupted, RangeReader, Source
from .segments import Segment, make_run, plan_runs
from .syncing import Syncer
from .work_queue import WorkQueue

REPORT_S = 0.1
MAX_FAILURES = 8
ADVANCE_BYTES = 64 << 10
HALT_S = 6.0  # an attempt to connect may last 5 s; whoever wakes later writes nothing any more


class _Stopped(Exception):
    """Another worker failed, or the caller was interrupted."""


class Fetch:
    """One fetch of some members; use `run` once.

    Members already in the folder, whole or as `.part`, are checked and completed.
    """

    def __init__(
        self, source: Source, members: Sequence[Member], folder: Path, options: TransferOptions
    ) -> None:
        self._source, self._folder, self._options = source, folder, options
        self._total = sum(member.size for member in members)
        ordered = sorted(members, key=lambda member: member.offset)
        runs = plan_runs(ordered, alone=_begun(folder))
        asked_for = options.parallel
        self._changed = threading.Condition()
        self._queue = WorkQueue(
            (make_run(folder, self._on_complete, run) for run in runs),
            self._changed,
            None if asked_for is None else -(-self._total // asked_for),
        )
        self._stop = threading.Event()
        self._syncer = Syncer()
        self._threads: list[threading.Thread] = []
        self._readers: list[RangeReader] = []
        self._working = 0
        self._wanted = asked_for or FIRST_RANGES
        self._adapting = asked_for is None
        self._damaged: set[str] = set()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Fetch all of it, or raise the first error; then everything right is kept for resuming.

        Raises IntegrityError (wrong bytes twice), DatasetReplaced, AccessDenied, NoSpace,
        StoreUnreachable (after 8 failures in a row without advance), StoreError.
        """
        try:
            self._add_workers()
            self._supervise()
            if self._error is not None:
                raise self._error
            self._syncer.finish()
        finally:
            self._halt()
        self._report()

    # -- the thread that asked

    def _supervise(self) -> None:
        measurements: list[Measurement] = []
        since, before = self._options.clock(), 0
        while not self._wait():
            self._report()
            seconds, received = self._options.clock() - since, self._queue.received - before
            working = max(self._working, 1)
            if is_conclusive(seconds, received, working):
                look = Measurement(working, received / seconds)
                self._queue.range_bytes_per_s = look.bytes_per_s / working
                if self._adapting and working == self._wanted:
                    measurements.append(look)
                    self._wanted = ranges_wanted(measurements)
                    self._adapting = self._wanted > working
                since, before = self._options.clock(), self._queue.received
            self._add_workers()

    def _wait(self) -> bool:
        """Wait for the end, a moment at most, less if something waits for a worker that may be
        added; whether the end has come."""

        def reason() -> bool:
            return not self._working or (self._working < self._wanted and self._queue.waiting)

        with self._changed:
            self._changed.wait_for(reason, timeout=REPORT_S)
            return self._working == 0

    def _report(self) -> None:
        if self._options.progress is not None:
            self._options.progress(self._queue.done, self._total)

    def _halt(self) -> None:
        self._syncer.drop()
        self._break_off()
        for thread in self._threads:
            thread.join(timeout=HALT_S)
        self._queue.close()
        self._syncer.close()

    def _break_off(self) -> None:
        self._stop.set()
        self._queue.stop()
        for reader in list(self._readers):
            reader.abort()

    def _add_workers(self) -> None:
        """Start as many as are wanted, if there is something for each of them to do."""
        for _ in range(min(self._wanted - self._working, self._queue.openings())):
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

    # -- workers

    def _work(self, reader: RangeReader) -> None:
        try:
            while (segment := self._queue.next()) is not None:
                self._fetch(reader, segment)
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
        self._break_off()

    def _fetch(self, reader: RangeReader, segment: Segment) -> None:
        """Bring a segment onto the disk, with retries."""
        failures = 0
        while segment.left > 0:
            start = segment.position
            try:
                self._receive(reader, segment)
            except Interrupted as error:
                self._check_stop()
                failures = 1 if segment.position - start >= ADVANCE_BYTES else failures + 1
                self._pause(failures, error)
        self._queue.end(segment)

    def _receive(self, reader: RangeReader, segment: Segment) -> None:
        """One request. Another worker may take the later half of the segment meanwhile: then it is
        broken off where that begins."""
        asked_for = segment.stop
        with contextlib.closing(reader.read(segment.position, asked_for)) as received:
            for data in received:
                self._check_stop()
                if not self._queue.received:
                    self._note_distance(reader)
                data = data[: segment.left]
                kept = segment.run.write(data, segment.position)
                self._queue.advance(segment, len(data), kept)
                if segment.left <= 0 and segment.stop < asked_for:
                    return

    def _note_distance(self, reader: RangeReader) -> None:
        with self._changed:
            if self._adapting and is_distant(reader.answer_s):
                self._wanted, self._adapting = MAX_RANGES, False
                self._queue.range_bytes_per_s = DISTANT_RANGE_BYTES_PER_S
                self._changed.notify_all()

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

    def _on_complete(self, part: PartFile) -> None:
        """Compare a member that has come with the table; a damaged one is fetched once more.

        Raises IntegrityError when it is damaged for the second time.
        """
        if part.check():
            self._syncer.submit(part)
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
        self._damaged.add(member.name)
        self._queue.again(make_run(self._folder, self._on_complete, [member]), member.size)


def _begun(folder: Path) -> set[str]:
    """Names of the members an earlier process began or finished in the folder."""
    return {path.name.removesuffix(PART_SUFFIX) for path in folder.iterdir()}
