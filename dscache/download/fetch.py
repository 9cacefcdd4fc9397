"""Fetch members of a zip into a folder: concurrent ranges, with retries and checks.

Workers take segments from a `WorkQueue`. The calling thread does not transfer: it reports progress,
starts more workers while that helps, and stops them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from ..errors import IntegrityError, StoreUnreachable
from ..folder.contents import PART_SUFFIX
from ..folder.directory import Directory
from ..protocol.manifests import Member
from ..terminal import logger
from ..units import format_bytes
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
HALT_S = 6.0  # an attempt to connect may take 5 s; a worker that is stuck for longer writes nothing
_log = logger(__name__)


class _Stopped(Exception):
    """Another worker failed, or the caller was interrupted."""


class Fetch:
    """One fetch of some members; call `run` once.

    Members that are in the folder, complete or as `.part`, are checked and completed.
    """

    def __init__(
        self, source: Source, members: Sequence[Member], folder: Directory, options: TransferOptions
    ) -> None:
        self._source, self._folder, self._options = source, folder, options
        self._total = sum(member.size for member in members)
        ordered = sorted(members, key=lambda member: member.offset)
        runs = plan_runs(ordered, alone=_started_names(folder))
        self._changed = threading.Condition()
        self._queue = WorkQueue(
            (make_run(folder, self._on_complete, run) for run in runs),
            self._changed,
            None if options.parallel is None else -(-self._total // options.parallel),
        )
        self._stop = threading.Event()
        self._syncer = Syncer()
        self._threads: list[threading.Thread] = []
        self._readers: list[RangeReader] = []
        self._working = 0
        self._wanted = options.parallel or FIRST_RANGES
        self._adapting = options.parallel is None
        self._damaged: set[str] = set()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Fetch all members, or raise the first error and keep what was received for resuming.

        Raises IntegrityError (wrong bytes twice), DatasetReplaced, AccessDenied, NoSpace,
        StoreUnreachable (after 8 consecutive failures without progress), StoreError.
        """
        _log.debug(
            "%s: fetching %s with up to %d connections",
            self._source.name, format_bytes(self._total), self._wanted,
        )  # fmt: skip
        try:
            self._add_workers()
            self._supervise()
            if self._error is not None:
                raise self._error
            self._syncer.finish()
        finally:
            self._halt()
        self._report()

    # -- the calling thread

    def _supervise(self) -> None:
        measurements: list[Measurement] = []
        since, received_before = self._options.clock(), 0
        while not self._wait():
            self._report()
            seconds = self._options.clock() - since
            received = self._queue.received - received_before
            working = max(self._working, 1)
            if is_conclusive(seconds, received, working):
                measurement = Measurement(working, received / seconds)
                self._queue.range_bytes_per_s = measurement.bytes_per_s / working
                if self._adapting and working == self._wanted:
                    measurements.append(measurement)
                    self._adapt(measurements)
                since, received_before = self._options.clock(), self._queue.received
            self._add_workers()

    def _adapt(self, measurements: list[Measurement]) -> None:
        ranges, bytes_per_s = measurements[-1]
        self._wanted = ranges_wanted(measurements)
        self._adapting = self._wanted > ranges
        _log.debug(
            "%s: %d connections receive %s/s; continuing with %d",
            self._source.name, ranges, format_bytes(int(bytes_per_s)), self._wanted,
        )  # fmt: skip

    def _wait(self) -> bool:
        """Wait until all workers have ended or one can be added, at most `REPORT_S`; return
        whether all have ended."""

        def has_changed() -> bool:
            return not self._working or (self._working < self._wanted and self._queue.has_work)

        with self._changed:
            self._changed.wait_for(has_changed, timeout=REPORT_S)
            return self._working == 0

    def _report(self) -> None:
        if self._options.progress is not None:
            self._options.progress(self._queue.done, self._total)

    def _halt(self) -> None:
        self._syncer.stop()
        self._stop_workers()
        for thread in self._threads:
            thread.join(timeout=HALT_S)
        self._queue.close()
        self._syncer.close()

    def _stop_workers(self) -> None:
        self._stop.set()
        self._queue.stop()
        for reader in list(self._readers):
            reader.abort()

    def _add_workers(self) -> None:
        """Start the missing workers, as far as there is something for them to do."""
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
        except BaseException as error:  # noqa: BLE001  raised in the calling thread
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
        self._stop_workers()

    def _fetch(self, reader: RangeReader, segment: Segment) -> None:
        """Fetch a segment, with retries."""
        failures = 0
        while segment.left > 0:
            start = segment.position
            try:
                self._receive(reader, segment)
            except Interrupted as error:
                self._check_stop()
                failures = 1 if segment.position - start >= ADVANCE_BYTES else failures + 1
                self._pause(segment, failures, error)
        self._queue.end(segment)

    def _receive(self, reader: RangeReader, segment: Segment) -> None:
        """Send one request and write what it returns.

        Another worker may take the second half of the segment meanwhile; then this ends where that
        half starts.
        """
        requested_stop = segment.stop
        with contextlib.closing(reader.read(segment.position, requested_stop)) as chunks:
            for data in chunks:
                self._check_stop()
                if not self._queue.received:
                    self._adapt_to_distance(reader.response_s)
                data = data[: segment.left]
                kept = segment.run.write(data, segment.position)
                self._queue.advance(segment, len(data), kept)
                if segment.left <= 0 and segment.stop < requested_stop:
                    return

    def _adapt_to_distance(self, response_s: float) -> None:
        with self._changed:
            if self._adapting and is_distant(response_s):
                self._wanted, self._adapting = MAX_RANGES, False
                self._queue.range_bytes_per_s = DISTANT_RANGE_BYTES_PER_S
                self._changed.notify_all()
                _log.debug(
                    "%s: the first response took %.0f ms; using %d connections",
                    self._source.name, response_s * 1000, MAX_RANGES,
                )  # fmt: skip

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _pause(self, segment: Segment, failures: int, error: Interrupted) -> None:
        if failures > MAX_FAILURES:
            raise StoreUnreachable(
                f"{self._source.name}: {failures} consecutive attempts failed without receiving "
                f"data: {error}; what was downloaded is kept, and getting the dataset again resumes"
            ) from error
        pause_s = backoff_s(failures, self._options.jitter())
        _log.debug(
            "%s: %s; retrying from byte %d in %.2f s (failure %d of %d)",
            self._source.name, error, segment.position, pause_s, failures, MAX_FAILURES,
        )  # fmt: skip
        (self._options.sleep or self._stop.wait)(pause_s)
        self._check_stop()

    def _on_complete(self, part: PartFile) -> None:
        """Compare a received member with the member table; fetch a damaged one again, once.

        Raises IntegrityError when it is damaged for the second time.
        """
        if part.check():
            self._syncer.submit(part)
            return
        part.close()
        member = part.member
        if member.name in self._damaged:
            raise IntegrityError(
                f"{member.name} in {self._source.name}: received bytes that differ from the ready "
                f"marker twice (expected CRC-32 {member.crc32:08x}, BLAKE3 {member.digest}); the "
                "copy in the store is damaged: retire the dataset and request it again"
            )
        self._damaged.add(member.name)
        _log.debug("%s in %s: wrong checksums; fetching it again", member.name, self._source.name)
        self._queue.requeue(make_run(self._folder, self._on_complete, [member]), member.size)


def _started_names(folder: Directory) -> set[str]:
    """Return the names of the members that an earlier process started or finished."""
    return {name.removesuffix(PART_SUFFIX) for name in folder.names()}
