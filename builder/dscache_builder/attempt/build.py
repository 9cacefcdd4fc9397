"""From a plan to a sealed checkpoint: build shards, pack them into parts, upload these meanwhile.

Only the build's own thread writes the checkpoint; uploads run in an executor.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field

from dscache.errors import NoSuchUpload
from dscache.protocol import layout
from dscache.protocol.manifests import BadSample, Member, PartRecord, Seal, ShardRecord, Timings
from dscache.store.objects import Objects, multipart_etag
from dscache.store.upload import body_size
from dscache.terminal import logger

from ..engine import Heartbeat, Session
from ..failure import HandlerFailure, RawDataChanged
from ..hosting.messages import Advanced, PlanSummary, ShardBuilt
from ..scratch import remove_file
from . import zip_writer
from .bad_samples import listed
from .claim import NO_UPLOAD, Claim
from .parts import (
    MAX_PART_BYTES,
    PARTS_PLANNED,
    FilledPart,
    FinishedShard,
    Packer,
    keep_prefix,
    part_bytes,
)
from .publish import UPLOAD_METADATA
from .tail import end_of_zip

log = logger("dscache_builder")

UPLOADS_IN_FLIGHT = 2
MD5_HEX_CHARS = 32
WAIT_S = 0.5


@dataclass
class BuildCounts:
    """Progress of a build: examples, bytes, shards, and bad samples."""

    total: int = 0
    kept: int = 0
    advanced: int = 0
    bytes: int = 0
    shards: int = 0
    shards_done: int = 0
    bad: int = 0

    @property
    def done(self) -> int:
        """Examples done, including those of an earlier attempt."""
        return self.kept + self.advanced


@dataclass
class Build:
    """One build of one key, under a claim. Other threads may read `counts`."""

    store: Objects
    claim: Claim
    session: Session
    uploads: Executor
    heartbeat: Heartbeat
    unique: Callable[[], str]
    scratch_bytes: int
    counts: BuildCounts = field(default_factory=BuildCounts)
    _parts: list[PartRecord] = field(default_factory=list)
    _in_flight: list[tuple[FilledPart, Future[str]]] = field(default_factory=list)
    _ready_parts: list[FilledPart] = field(default_factory=list)
    _unreleased_bytes: int = 0
    _resumable: bool = True

    def seal(self, plan: PlanSummary, plan_s: float) -> None:
        """Build what is missing, upload it, and write the seal.

        Raises:
            HandlerFailure: the handler failed.
            ClaimLost: another builder has taken the key over.
            NoSuchUpload: the upload has expired; start over.
        """
        started = time.monotonic()
        self._resumable = plan.resumable
        self._check_revision(plan)
        self._resume(plan)
        kept = [shard for part in self._parts for shard in part.shards]
        self._count_kept(plan, kept)
        built = self._build(plan, kept)
        _check_all_built(plan, len(kept) + len(built))
        self._check_raw_data(plan)
        spec, features = self.session.resolved, self.session.features()
        members, tail = end_of_zip(spec, features, [*kept, *built])
        self._upload_last(tail)
        bad = [bad for shard in (*kept, *built) for bad in shard.bad_samples]
        timings = Timings(
            environment_s=round(self.session.environment_s, 3),
            plan_s=round(plan_s, 3),
            build_s=round(time.monotonic() - started, 3),
        )
        self._write_seal(members, len(tail), bad, plan, timings)

    # -- the upload, and the parts of an earlier attempt

    def _resume(self, plan: PlanSummary) -> None:
        """Keep the parts that the checkpoint and the store agree on, or begin a new upload."""
        value = self.claim.value
        if value.upload_id and plan.resumable and value.plan_digest == self._digest_of(plan):
            try:
                stored = self.store.list_parts(self._zip_key, value.upload_id)
                self._parts = keep_prefix(value.parts, stored)
                log.debug("%s: keeping %d parts", self.claim.key, len(self._parts))
                return
            except NoSuchUpload:
                pass
        self._begin_upload(plan)
        if value.upload_id:  # only now: no checkpoint may name an upload that was aborted
            self.store.abort_upload(self._zip_key, value.upload_id)

    def _begin_upload(self, plan: PlanSummary) -> None:
        nonce = self.unique()
        upload_id = self.store.create_upload(self._zip_key, {UPLOAD_METADATA: nonce})
        changes = {**NO_UPLOAD, "upload_id": upload_id, "upload_nonce": nonce}
        self.claim.write(**{**changes, "plan_digest": self._digest_of(plan)})
        self._parts = []

    def _digest_of(self, plan: PlanSummary) -> str:
        """Digest of what the bytes of a part depend on: the plan, and the code that follows it."""
        return hashlib.sha256(f"{plan.digest} {self.session.lock_digest}".encode()).hexdigest()

    def _drop_upload(self) -> None:
        """Forget what was built from other raw data, which may come back with its old times."""
        upload_id = self.claim.value.upload_id
        if upload_id:
            self.claim.forget_upload()
            self.store.abort_upload(self._zip_key, upload_id)

    @property
    def _zip_key(self) -> str:
        return layout.archive(self.claim.key, self.claim.value.generation)

    def _count_kept(self, plan: PlanSummary, kept: list[ShardRecord]) -> None:
        self.counts.total = plan.examples
        self.counts.shards = len(plan.shards)
        self.counts.shards_done = len(kept)
        self.counts.kept = sum(shard.records for shard in kept)
        self.counts.bytes = sum(shard.size for shard in kept)
        self.counts.bad = sum(len(shard.bad_samples) + shard.more_bad_samples for shard in kept)

    # -- the raw data

    def _check_revision(self, plan: PlanSummary) -> None:
        """A spec that pins the raw data is built from exactly that data."""
        pinned = self.session.resolved.dataset_revision
        if pinned is not None and pinned != plan.raw_revision:
            self._drop_upload()
            raise HandlerFailure(
                "raw-data",
                f"dataset_revision pins the raw data to revision {pinned!r}, but it is now at "
                f"{plan.raw_revision!r}; restore the old raw data, or leave dataset_revision out "
                "to build from the current one",
            )

    def _check_raw_data(self, plan: PlanSummary) -> None:
        """All shards were made from the raw data that was planned.

        Of a plain handler nobody knows which files it has read, so all of them count.
        """
        all_count = self.session.resolved.dataset_revision is not None or not plan.resumable
        changes = self.session.raw_changes(plan.raw_revision if all_count else "")
        if changes:
            self._drop_upload()
            raise RawDataChanged(changes)

    # -- shards

    def _build(self, plan: PlanSummary, kept: list[ShardRecord]) -> list[ShardRecord]:
        first = len(kept)
        self._packer = Packer(next_part=len(self._parts) + 1, next_shard=first)
        built: dict[int, ShardRecord] = {}
        for event in self.session.build(range(first, len(plan.shards)), self._may_start):
            if isinstance(event, ShardBuilt):
                _check_is_there(event)
                built[event.index] = self._shard_built(event)
            elif isinstance(event, Advanced):
                self.counts.advanced = event.examples_done
            self._pump()
            self.heartbeat()
        self.counts.advanced = sum(shard.records for shard in built.values())
        return [built[index] for index in sorted(built)]

    def _may_start(self) -> bool:
        """Whether another shard may start: wait for uploads rather than fill the disk."""
        return self._unreleased_bytes < self.scratch_bytes or not self._in_flight

    def _shard_built(self, event: ShardBuilt) -> ShardRecord:
        if event.size >= MAX_PART_BYTES:
            raise HandlerFailure(
                "handler",
                f"shard {event.name} has {event.size / 2**30:.1f} GiB, but a shard must be under "
                "5 GiB: write more and smaller files (option batch_size)",
            )
        bad = listed(event.bad, before=self.counts.bad)
        record = ShardRecord(
            name=event.name,
            size=event.size,
            crc32=event.crc32,
            digest=event.digest,
            records=event.records,
            split=event.split,
            bad_samples=bad,
            more_bad_samples=len(event.bad) - len(bad),
        )
        self.counts.bytes += event.size
        self.counts.shards_done += 1
        self.counts.bad += len(event.bad)
        self._unreleased_bytes += event.size
        filled = self._packer.add(
            event.index, FinishedShard(record, event.path), part_bytes(self._estimated_bytes())
        )
        self._ready_parts.extend(filled)
        return record

    def _estimated_bytes(self) -> int:
        """Estimate the bytes of the whole dataset from the shards so far.

        A plain handler plans no shards, so its size is unknown: then each part has at least a
        thousandth of the bytes so far, and 10,000 parts hold any dataset.
        """
        if not self.counts.shards:
            return PARTS_PLANNED // 1000 * self.counts.bytes
        share = self.counts.shards_done / self.counts.shards
        return int(self.counts.bytes / share) if share else self.counts.bytes

    # -- parts

    def _pump(self) -> None:
        """Record the uploaded parts, in order, and send the next ones.

        Never the last part, the only one with a tail: the seal records it. A checkpoint with that
        part but no seal would be resumed as if shards could follow the central directory.
        """
        recorded = False
        while self._in_flight and self._in_flight[0][1].done() and not self._in_flight[0][0].tail:
            self._record(*self._in_flight.pop(0))
            recorded = True
        if recorded:
            progress = {"takeovers": 0} if self._resumable else {}  # a plain handler loses it
            self.claim.write(parts=list(self._parts), **progress)
        while self._ready_parts and len(self._in_flight) < UPLOADS_IN_FLIGHT:
            self._send(self._ready_parts.pop(0))

    def _send(self, part: FilledPart) -> None:
        upload_id = self.claim.value.upload_id
        future = self.uploads.submit(
            self.store.upload_part, self._zip_key, upload_id, part.number, part.segments
        )
        self._in_flight.append((part, future))

    def _record(self, part: FilledPart, future: Future[str]) -> None:
        self._parts.append(
            PartRecord(
                number=part.number,
                size=body_size(part.segments),
                etag=future.result(),
                shards=part.records,
            )
        )
        for shard in part.shards:
            remove_file(shard.path)
            self._unreleased_bytes -= shard.record.size

    def _upload_last(self, tail: bytes) -> None:
        """Upload the last part; on return all parts are uploaded, and the seal can be written."""
        self._ready_parts.append(self._packer.last(tail))
        for _ in self._until_all_uploaded():
            self.heartbeat()

    def _until_all_uploaded(self) -> Iterator[None]:
        while self._in_flight or self._ready_parts:
            if len(self._in_flight) == 1 and not self._ready_parts:
                part, future = self._in_flight[0]
                wait([future], timeout=WAIT_S)
                if future.done():
                    self._record(part, future)
                    self._in_flight.clear()
                    return
            else:
                if self._in_flight:
                    wait([self._in_flight[0][1]], timeout=WAIT_S)
                self._pump()
            yield

    # -- the seal

    def _write_seal(
        self,
        members: list[Member],
        tail_bytes: int,
        bad: list[BadSample],
        plan: PlanSummary,
        timings: Timings,
    ) -> None:
        etags = [part.etag for part in self._parts]
        known = all(len(etag) == MD5_HEX_CHARS for etag in etags)
        shards = [member for member in members if member.split]
        seal = Seal(
            zip_etag=multipart_etag(etags) if known else "",
            zip_size=zip_writer.data_end(shards) + tail_bytes,
            members=members,
            features=self.session.features(),
            bad_samples=bad,
            more_bad_samples=self.counts.bad - len(bad),
            raw_revision=plan.raw_revision,
            lock_digest=self.session.lock_digest,
            timings=timings,
            repeatable=plan.resumable and all(sample.repeatable for sample in bad),
        )
        seals = self.claim.value.seals + 1
        self.claim.write(parts=list(self._parts), seal=seal, seals=seals, takeovers=0)


def _check_is_there(event: ShardBuilt) -> None:
    """The file of a shard is where the host has put it, and nothing else."""
    if event.path.parent.is_symlink() or event.path.is_symlink() or not event.path.is_file():
        raise HandlerFailure(
            "handler",
            f"shard {event.name} is gone, or a link lies in its place: the handler has changed "
            "files outside of its working folder",
        )


def _check_all_built(plan: PlanSummary, built: int) -> None:
    """Nothing else would notice that the last shards are missing. Plain handlers plan none."""
    if plan.shards and built != len(plan.shards):
        raise HandlerFailure(
            "builder",
            f"only {built} of {len(plan.shards)} shards were built, though no failure was "
            "reported; this is a bug in dscache: please report it with the builder's log",
        )
