"""From a sealed checkpoint to a live ready marker: complete, publish, retire.

Step numbers are those of docs/protocol.md#a-build-step-by-step.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from dscache.errors import InvalidPart, NoSuchUpload, PreconditionFailed
from dscache.protocol import layout, manifests, markers, registers
from dscache.protocol.manifests import Alias, Checkpoint, Live, Ready, Retired
from dscache.spec import Spec
from dscache.store.objects import Head, Objects

from .claim import Claim
from .parts import keep_prefix

UPLOAD_METADATA = "dscache-upload"
_MULTIPART_ETAG = re.compile(r"[0-9a-f]{32}-[0-9]+")


class Step(enum.Enum):
    """The next step, given the states of the zip and the checkpoint."""

    BUILD = "build"
    COMPLETE = "complete"
    PUBLISH = "publish"
    RETIRE = "retire"
    AGAIN = "again"


@dataclass(frozen=True)
class ReadyRegister:
    """The ready marker as it was read: its value, and the etag that a later write must match."""

    value: Ready | None
    etag: str | None

    @property
    def generation(self) -> int:
        """The generation to build if the marker is not live."""
        return self.value.generation + 1 if isinstance(self.value, Retired) else 0


def read_ready(store: Objects, key: str) -> ReadyRegister:
    """GET the ready marker."""
    return ReadyRegister(*markers.read_ready_register(store, key))


def next_step(head: Head | None, checkpoint: Checkpoint) -> Step:
    """Step 6: what to do, given the HEAD of the zip of this generation."""
    if checkpoint.seal is None:
        return Step.BUILD if head is None else Step.RETIRE
    if head is None:
        return Step.COMPLETE
    return Step.PUBLISH if is_sealed(head, checkpoint) else Step.RETIRE


def is_sealed(head: Head, checkpoint: Checkpoint) -> bool:
    """Whether the zip is the one that this checkpoint sealed.

    The etag says so where it is made as Amazon S3 makes it. Elsewhere the nonce in the upload's
    metadata does, as long as that upload was sealed only once: two seals are two contents.
    """
    seal = checkpoint.seal
    assert seal is not None
    if head.etag == seal.zip_etag:
        return True
    etag_decides = seal.zip_etag and _MULTIPART_ETAG.fullmatch(head.etag)
    return (
        not etag_decides
        and checkpoint.seals <= 1
        and head.size == seal.zip_size
        and head.metadata.get(UPLOAD_METADATA) == checkpoint.upload_nonce
    )


def zip_name(claim: Claim, generation: int | None = None) -> str:
    """Name of the zip of a generation, by default that of the claim."""
    if generation is None:
        generation = claim.value.generation
    return layout.archive(claim.key, generation)


def complete(store: Objects, claim: Claim) -> Step:
    """Step 14: complete the multipart upload; return the step that follows from the answer."""
    value = claim.value
    name = zip_name(claim)
    try:
        store.complete_upload(
            name, value.upload_id, [(part.number, part.etag) for part in value.parts]
        )
    except InvalidPart:
        return _drop_invalid_parts(store, claim, name)
    except (PreconditionFailed, NoSuchUpload) as refusal:
        head = store.head(name)
        if head is not None:
            return next_step(head, value)
        if isinstance(refusal, NoSuchUpload):
            claim.forget_upload()
        return Step.AGAIN
    return Step.PUBLISH


def _drop_invalid_parts(store: Objects, claim: Claim, name: str) -> Step:
    """A part differs from the seal: unseal, keep the leading parts that match, build the others."""
    try:
        kept = keep_prefix(claim.value.parts, store.list_parts(name, claim.value.upload_id))
    except NoSuchUpload:
        if store.head(name) is None:
            claim.forget_upload()
        return Step.AGAIN
    if len(kept) == len(claim.value.parts):
        return Step.AGAIN  # all match now: a late upload of another builder was replaced meanwhile
    claim.write(seal=None, parts=kept)
    return Step.AGAIN


def publish(
    store: Objects, claim: Claim, spec: Spec, before: ReadyRegister, *, builder: str
) -> bool:
    """Steps 15 and 16: PUT ready live, conditional on `before`. False: start over at step 3."""
    seal = claim.value.seal
    assert seal is not None
    zip_key = zip_name(claim)
    head = store.head(zip_key)
    if head is None or not is_sealed(head, claim.value):
        return False
    live = Live(
        spec=spec,
        generation=claim.value.generation,
        zip_key=zip_key,
        zip_etag=head.etag,
        zip_size=seal.zip_size,
        seal=claim.value.upload_nonce,
        members=seal.members,
        features=seal.features,
        raw_revision=seal.raw_revision,
        lock_digest=seal.lock_digest,
        timings=msgspec.structs.replace(seal.timings, finished_at=store.now()),
        bad_samples=seal.bad_samples,
        more_bad_samples=seal.more_bad_samples,
        repeatable=seal.repeatable,
        builder=builder,
    )
    return _put_ready(store, claim.key, live, before)


def publish_alias(
    store: Objects, key: str, resolved: Spec, before: ReadyRegister, unique: Callable[[], str]
) -> bool:
    """PUT the ready marker of a key that resolves to another one; False as for `publish`."""
    alias = Alias(key=resolved.key, spec=resolved, nonce=unique())
    return _put_ready(store, key, alias, before)


def retire_unknown(
    store: Objects, claim: Claim, spec: Spec, before: ReadyRegister, unique: Callable[[], str]
) -> None:
    """Retire a zip without a known member table: prove the claim, mark it retired, delete it."""
    generation, upload_id = claim.value.generation, claim.value.upload_id
    claim.forget_upload()
    if upload_id:
        store.abort_upload(zip_name(claim, generation), upload_id)
    retired = Retired(
        spec=spec,
        generation=generation,
        nonce=unique(),
        retired_at=store.now(),
        reason="the zip is not the one its builder sealed",
    )
    if _put_ready(store, claim.key, retired, before):
        store.delete(zip_name(claim, generation))


def _put_ready(store: Objects, key: str, value: Ready, before: ReadyRegister) -> bool:
    try:
        registers.write(store, layout.ready(key), manifests.encode(value), if_match=before.etag)
    except PreconditionFailed:
        return False
    return True
