"""What people see of a build while it runs: progress, preview, log. Hints; they decide nothing."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dscache import layout, manifests
from dscache.errors import DscacheError
from dscache.manifests import Progress
from dscache.store import Objects

if TYPE_CHECKING:
    from .building import Counts
    from .engine import Work

log = logging.getLogger("dscache_builder")

INTERVAL_S = 1.0
EXPIRES_S = 30.0
PREVIEW_EXAMPLES = 16


class Reporter:
    """Reports nothing: the base of `BucketReporter`, and what a run without onlookers uses."""

    def phase(self, name: str) -> None:
        """A new phase begins."""

    def building(self, counts: Counts) -> None:
        """From now on the build's numbers are in `counts`."""

    def tick(self) -> None:
        """Called at least once a second."""

    def preview(self, work: Work) -> None:
        """Show the first examples."""

    def log(self, text: str) -> None:
        """Keep the build's log."""

    def done(self) -> None:
        """The key is answered: there is nothing to report any more."""

    def close(self) -> None:
        """The attempt is over."""


class BucketReporter(Reporter):
    """Writes `datasets/<key>.progress` at most once a second, and preview and log when they exist.

    The progress travels also in the metadata of the object, so that it is inside the event.
    """

    def __init__(
        self, store: Objects, key: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._phase = ""
        self._counts: Counts | None = None
        self._began = clock()
        self._written_at = -INTERVAL_S
        self._written = False

    def phase(self, name: str) -> None:
        self._phase = name
        log.info("%s: %s", self._key, name)
        self._write()

    def building(self, counts: Counts) -> None:
        self._counts = counts
        self._began = self._clock()
        self.phase("building")

    def tick(self) -> None:
        if self._clock() - self._written_at >= INTERVAL_S:
            self._write()

    def preview(self, work: Work) -> None:
        with tempfile.TemporaryDirectory(prefix="dscache-preview-") as folder:
            picture = Path(folder) / "preview.png"
            try:
                statistics = work.preview(PREVIEW_EXAMPLES, picture)
                if picture.exists():
                    self._put(
                        layout.preview(self._key),
                        picture.read_bytes(),
                        "image/png",
                        {"statistics": statistics},
                    )
            except DscacheError as error:
                # what is wrong here is wrong in the build too, and reported there with its sample
                log.info("%s: %s", self._key, error)

    def log(self, text: str) -> None:
        if text:
            self._put(layout.log(self._key), text.encode(), "text/plain; charset=utf-8")

    def done(self) -> None:
        if self._written:
            self._quietly(lambda: self._store.delete(layout.progress(self._key)))

    def _write(self) -> None:
        self._written_at = self._clock()
        self._written = True
        progress = self.progress()
        body = manifests.encode(progress)
        compact = msgspec.json.encode(progress).decode()
        self._put(layout.progress(self._key), body, "application/json", {"progress": compact})

    def progress(self) -> Progress:
        """The numbers as of now; remaining seconds are -1 while nobody can know."""
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
