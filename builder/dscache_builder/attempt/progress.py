"""What people see of a running build: progress, preview, log. Hints: nothing depends on them."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dscache.errors import DscacheError
from dscache.protocol import layout, manifests
from dscache.protocol.buildlog import BuildLog, continued
from dscache.protocol.manifests import Progress
from dscache.store.objects import Objects
from dscache.terminal import logger, printable
from dscache.units import format_bytes

from ..failure import HandlerFailure
from ..foreign import fit

if TYPE_CHECKING:
    from ..engine import Session
    from .build import BuildCounts

log = logger("dscache_builder")

INTERVAL_S = 1.0
LOG_INTERVAL_S = 5.0
EXPIRES_S = 30.0
PREVIEW_EXAMPLES = 16
STATISTICS_BYTES = 1_000  # headers of an object have 2 KB


class Reporter:
    """Reports nothing: the base class of `BucketReporter`, and enough for tests."""

    def phase(self, name: str) -> None:
        """Begin a phase."""

    def building(self, counts: BuildCounts) -> None:
        """Begin the phase `building`; from now on `counts` has its numbers."""

    def tick(self) -> None:
        """Write what is due; called at least once a second."""

    def preview(self, session: Session) -> None:
        """Draw the first examples."""

    @contextmanager
    def following(self, log_tail: Callable[[], str]) -> Iterator[None]:  # noqa: ARG002 - an interface
        """Within this block, `log_tail` returns the end of the handler's output."""
        yield

    def done(self) -> None:
        """The key is answered: end the log, delete the progress."""


class BucketReporter(Reporter):
    """Writes `datasets/<key>.progress`, `.log` and `.preview.png`.

    Progress is written at most once a second, the log at most every five seconds and only if it has
    grown. The object's metadata also has the progress, so notifications carry it. The log is
    bounded (`dscache.protocol.buildlog`); `attempt` distinguishes the logs of two attempts.
    """

    def __init__(
        self,
        store: Objects,
        key: str,
        *,
        attempt: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._phase = ""
        self._counts: BuildCounts | None = None
        self._began = clock()
        self._written_at = -INTERVAL_S
        self._written = False
        self._log = BuildLog(attempt)
        self._log_put_at = -LOG_INTERVAL_S
        self._log_put = b""
        self._log_tail: Callable[[], str] = str
        self._printed = ""

    def phase(self, name: str) -> None:
        self._phase = name
        log.info("%s: %s", self._key, name)
        self._note(name)
        self.tick()

    def building(self, counts: BuildCounts) -> None:
        self._counts = counts
        self._began = self._clock()
        self.phase("building")

    def tick(self) -> None:
        self._write_if_due()
        if self._clock() - self._log_put_at >= LOG_INTERVAL_S:
            self._put_log()

    @contextmanager
    def following(self, log_tail: Callable[[], str]) -> Iterator[None]:
        self._log_tail, self._printed = log_tail, ""
        try:
            yield
        finally:
            self._read_log()
            self._log_tail, self._printed = str, ""

    def _note(self, text: str) -> None:
        """Add a line of the builder between those of the handler."""
        self._read_log()
        at = datetime.datetime.fromtimestamp(self._store.now(), datetime.UTC)
        self._log.add(f"{at:%H:%M:%S}Z {text}\n")

    def _read_log(self) -> None:
        printed = self._log_tail()
        self._log.add(continued(self._printed, printed))
        self._printed = printed

    def _put_log(self) -> None:
        self._log_put_at = self._clock()
        self._read_log()
        body = self._log.body
        if body != self._log_put:
            self._log_put = body
            self._put(layout.log(self._key), body, "text/plain; charset=utf-8")

    def preview(self, session: Session) -> None:
        with tempfile.TemporaryDirectory(prefix="dscache-preview-") as folder:
            image = Path(folder) / "preview.png"
            try:
                statistics = session.preview(PREVIEW_EXAMPLES, image)
                if image.exists():
                    self._put(
                        layout.preview(self._key),
                        image.read_bytes(),
                        "image/png",
                        {"statistics": fit(printable(statistics), STATISTICS_BYTES)},
                    )
            except HandlerFailure as error:  # not what a heartbeat raises: that ends the attempt
                # the same error will end the build, which reports it with its sample
                log.info("%s: %s", self._key, error)
                self._note(f"no preview: {error}")

    def done(self) -> None:
        if not self._written:
            return
        self._note(_result(self._counts))
        self._put_log()
        self._quietly(lambda: self._store.delete(layout.progress(self._key)))

    def _write_if_due(self) -> None:
        """Also when a phase begins: a phase shorter than the interval is not worth a request."""
        if self._clock() - self._written_at >= INTERVAL_S:
            self._write()

    def _write(self) -> None:
        self._written_at = self._clock()
        self._written = True
        progress = self.progress()
        body = manifests.encode(progress)
        compact = msgspec.json.encode(progress).decode()
        self._put(layout.progress(self._key), body, "application/json", {"progress": compact})

    def progress(self) -> Progress:
        """The current numbers; remaining seconds are -1 while they are unknown."""
        expires_at = self._store.now() + EXPIRES_S
        counts = self._counts
        if counts is None:
            return Progress(
                phase=self._phase, done=0, total=0, bytes=0, remaining_s=-1, expires_at=expires_at
            )
        spent_s = self._clock() - self._began
        left = max(counts.total - counts.done, 0)
        return Progress(
            phase=self._phase,
            done=counts.done,
            total=counts.total,
            bytes=counts.bytes,
            remaining_s=round(spent_s / counts.advanced * left, 1) if counts.advanced else -1,
            expires_at=expires_at,
            bad=counts.bad,
            shards_done=counts.shards_done,
            shards=counts.shards,
        )

    def _put(
        self, name: str, body: bytes, content_type: str, metadata: dict[str, str] | None = None
    ) -> None:
        ascii_only = {
            key: value.encode("ascii", "replace").decode()
            for key, value in (metadata or {}).items()
        }
        self._quietly(
            lambda: self._store.put(name, body, content_type=content_type, metadata=ascii_only)
        )

    def _quietly(self, action: Callable[[], object]) -> None:
        try:
            action()
        except DscacheError as error:
            log.debug("%s: hint not written: %s", self._key, error)


def _result(counts: BuildCounts | None) -> str:
    if counts is None:
        return "ended"
    left_out = f", {counts.bad} samples left out" if counts.bad else ""
    return (
        f"ended: {counts.shards_done} of {counts.shards} shards, "
        f"{format_bytes(counts.bytes)}{left_out}"
    )
