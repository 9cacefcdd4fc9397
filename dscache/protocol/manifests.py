"""The JSON objects in the bucket, as msgspec structs. Pure; every object carries `schema: 1`."""

from __future__ import annotations

import threading
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from ..errors import IntegrityError, NotWritable, SpecError
from ..spec import Spec, from_members
from ..units import format_bytes
from .priority import DEFAULT_PRIORITY, MAX_PRIORITY, MIN_PRIORITY

SCHEMA = 1

# Whoever may write may write numbers of a thousand digits, which nothing here can calculate with.
Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Manifest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of all objects; `schema` is always written, and checked when read."""

    schema: Int = SCHEMA


class Request(Manifest, kw_only=True):
    """`requests/<key>.<nonce>.json`: an outstanding request. `priority`: see `priority`."""

    spec: Spec
    nonce: str
    client: str
    requested_at: float
    priority: Annotated[int, msgspec.Meta(ge=MIN_PRIORITY, le=MAX_PRIORITY)] = DEFAULT_PRIORITY


class Cancel(Manifest, kw_only=True):
    """`requests/<key>.<nonce>.cancel`: the client withdraws its request."""

    nonce: str
    client: str
    cancelled_at: float


class Member(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One member of the zip. `offset` is where its data (not its header) begins, in bytes.

    `crc32` is the CRC-32 of the zip format; `digest` is BLAKE3-256 in hex; `split` and `records`
    are set for shards and absent for the two TFDS files.
    """

    name: str
    offset: Int
    size: Int
    crc32: Int
    digest: str
    records: Int = 0
    split: str = ""


class BadSample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A sample that was left out: its id, the error, and the end of the traceback.

    `repeatable` is false when its worker was killed or it ran over the time limit: that is no
    property of the data, so another build may keep the sample.
    """

    sample: str
    error: str
    traceback: str = ""
    repeatable: bool = True


class Timings(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Seconds spent, and when the build was finished (Unix time)."""

    environment_s: float = 0.0
    plan_s: float = 0.0
    build_s: float = 0.0
    finished_at: float = 0.0


class Live(Manifest, kw_only=True, tag="live", tag_field="state"):
    """Ready marker of a complete dataset: describes its zip completely. The commit point.

    `repeatable`: whether another build of the same spec from the same raw data should give the same
    bytes. It is false for plain handlers, which get no random numbers from the SDK, and when a bad
    sample is not repeatable. `more_bad_samples` counts those that are not in `bad_samples`.
    """

    spec: Spec
    generation: Int
    zip_key: str
    zip_etag: str
    zip_size: Int
    seal: str
    members: list[Member]
    features: dict[str, Any] = {}
    raw_revision: str = ""
    lock_digest: str = ""
    timings: Timings = Timings()
    bad_samples: list[BadSample] = []
    more_bad_samples: Int = 0
    repeatable: bool = True
    builder: str = ""

    @property
    def shards(self) -> list[Member]:
        """The members that hold records, in plan order."""
        return [member for member in self.members if member.split]

    @property
    def samples_left_out(self) -> int:
        """How many bad samples there are, with those that are only counted."""
        return len(self.bad_samples) + self.more_bad_samples

    @property
    def splits(self) -> dict[str, int]:
        """Records per split."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.split] = counts.get(shard.split, 0) + shard.records
        return counts


class Retired(Manifest, kw_only=True, tag="retired", tag_field="state"):
    """Ready marker of a retired dataset: its zip was deleted. `nonce` keeps bodies unique."""

    spec: Spec
    generation: Int
    nonce: str
    retired_at: float
    reason: str = ""


class Alias(Manifest, kw_only=True, tag="alias", tag_field="state"):
    """Ready marker of a spec that resolves to another one: `spec`, whose key is `key`."""

    key: str
    spec: Spec
    nonce: str


Ready = Live | Retired | Alias

FailureKind = Literal[
    "request", "environment", "options", "raw-data", "handler", "worker-killed", "time-limit",
    "store", "disk", "cancelled", "builder",
]  # fmt: skip


class Failure(Manifest, kw_only=True):
    """`datasets/<key>.failed.<nonce>`: why the build for this request failed."""

    kind: FailureKind
    message: str
    nonce: str
    failed_at: float
    builder: str = ""
    sample: str = ""
    traceback: str = ""
    log_tail: str = ""


class Progress(Manifest, kw_only=True):
    """`datasets/<key>.progress`: a hint. Counts are examples; `remaining_s` < 0 means unknown."""

    phase: str
    done: Int
    total: Int
    bytes: Int
    remaining_s: float
    expires_at: float
    bad: Int = 0
    shards_done: Int = 0
    shards: Int = 0


class ShardRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A finished shard inside a part of a checkpoint."""

    name: str
    size: Int
    crc32: Int
    digest: str
    records: Int
    split: str
    bad_samples: list[BadSample] = []
    more_bad_samples: Int = 0


class PartRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An uploaded part: its number (from 1), size in bytes, etag, and the shards it holds."""

    number: Int
    size: Int
    etag: str
    shards: list[ShardRecord]


class Seal(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Written before the upload is completed: what the ready marker needs, and the etag that the
    zip will have."""

    zip_etag: str
    zip_size: Int
    members: list[Member]
    features: dict[str, Any] = {}
    bad_samples: list[BadSample] = []
    more_bad_samples: Int = 0
    raw_revision: str = ""
    lock_digest: str = ""
    timings: Timings = Timings()
    repeatable: bool = True


class Checkpoint(Manifest, kw_only=True):
    """`builds/<key>.json`: claim and checkpoint in one register.

    Never deleted; every write is conditional; `counter` and `nonce` keep bodies from repeating.
    `owner` is "" when the claim is released. `expires_at` is server time. `upload_nonce` is in the
    metadata of the upload, so a HEAD says which build the zip is from. `seals` counts the seals
    of that upload: more than one if a part had to be built again.
    """

    owner: str
    nonce: str
    counter: Int
    expires_at: float
    generation: Int = 0
    upload_id: str = ""
    upload_nonce: str = ""
    plan_digest: str = ""
    parts: list[PartRecord] = []
    seal: Seal | None = None
    seals: Int = 0
    takeovers: Int = 0


class Lock(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an environment is made from. `requirements` are pinned lines with hashes."""

    source: str
    requirements: str
    python: str
    commit: str = ""
    wheel: str = ""
    wheel_sha256: str = ""


class Unlocked(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Who took a lock back, and when; `source` is what it was made from.

    `nonce` keeps the register's bodies from repeating.
    """

    by: str
    at: float
    source: str
    nonce: str


class HandlerVersion(Manifest, kw_only=True):
    """`handlers/<dataset_name>/<version>.json`, a register: the lock that holds for all builders.

    `lock` is None after `unlock`, until the next builder writes one; `unlocked` stays then.
    """

    dataset_name: str
    handler_version: str
    lock: Lock | None = None
    options: dict[str, Any] = {}
    resolved_at: float = 0.0
    unlocked: Unlocked | None = None


class RawRevision(Manifest, kw_only=True):
    """`raw/<dataset_name>.json`: revision of the raw data, and what it was computed from."""

    revision: str
    files: Int
    bytes: Int
    seen_at: float


class Usage(Manifest, kw_only=True):
    """`usage/…`: one download. `seconds` is wall time, `bytes` the size of the transfer."""

    client: str
    downloaded_at: float
    bytes: Int
    seconds: float


# The largest object of each kind, in bytes. A ready marker or a checkpoint of 100,000 shards has
# about 30 MB; everything else is small.
MAX_BYTES: dict[Any, int] = {
    Request: 1 << 20,
    Cancel: 64 << 10,
    Failure: 1 << 20,
    Progress: 64 << 10,
    Ready: 64 << 20,
    Checkpoint: 64 << 20,
    HandlerVersion: 4 << 20,
    RawRevision: 64 << 10,
    Usage: 64 << 10,
}

# How many values an object may hold. A decoded value takes about 64 bytes, whatever its text takes:
# 62 MiB of "[]," would become gigabytes. A member table has one value in 25 bytes or more.
FREE_VALUES = 250_000
BYTES_PER_VALUE = 24
SMALL_BYTES = 2 << 20  # is not counted

M = TypeVar("M")
_lock = threading.Lock()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(manifest: Manifest, *, spare_bytes: int = 0) -> bytes:
    """Encode as indented JSON, since people read it in the console; `schema` comes first.

    Raises NotWritable for what could not be read again: more bytes than the limit of the kind less
    `spare_bytes`, or text that is not Unicode.
    """
    kind = type(manifest)
    document = {"schema": manifest.schema, **msgspec.to_builtins(manifest)}
    try:
        body = msgspec.json.format(msgspec.json.encode(document), indent=1)
    except UnicodeEncodeError as error:
        raise NotWritable(
            f"a {kind.__name__} cannot be written: it contains text that is not Unicode: {error}"
        ) from None
    limit = MAX_BYTES[Ready if issubclass(kind, Ready) else kind] - spare_bytes
    if len(body) > limit:
        raise NotWritable(
            f"a {kind.__name__} of {format_bytes(len(body))} cannot be written: nobody would read "
            f"more than {format_bytes(limit)}"
        )
    return body


def decode(body: bytes, kind: type[M], *, where: str) -> M:
    """Decode an object of the bucket; its spec, if it has one, is checked and canonical.

    Raises IntegrityError naming the object `where`.
    """
    if len(body) > SMALL_BYTES and _values(body) > FREE_VALUES + len(body) // BYTES_PER_VALUE:
        raise IntegrityError(f"{where}: holds more values than any manifest; it is damaged")
    try:
        manifest = _decoder(kind).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"{where}: not a manifest of this version of dscache: {error}"
        ) from None
    if isinstance(manifest, (Request, Live, Retired, Alias)):
        try:
            manifest.spec = from_members(manifest.spec.members)
        except SpecError as error:
            raise IntegrityError(f"{where}: its spec is invalid: {error}") from None
    schema = getattr(manifest, "schema", SCHEMA)
    if schema != SCHEMA:
        raise IntegrityError(
            f"{where}: schema {schema}, but this dscache reads {SCHEMA}; upgrade dscache"
        )
    return manifest


def _values(body: bytes) -> int:
    """At least the number of JSON values, without decoding them: commas and brackets."""
    return sum(map(body.count, (b",", b"[", b"{")))


def _decoder(kind: type[M]) -> msgspec.json.Decoder[M]:
    """Return the decoder of a kind. One thread at a time makes one: msgspec inspects a structure
    at its first use, and the process crashes if a second thread decodes one meanwhile."""
    with _lock:
        if kind not in _decoders:
            _decoders[kind] = msgspec.json.Decoder(kind)
        return _decoders[kind]


def decode_known(body: bytes, kind: type[M], *, where: str) -> M | None:
    """Decode as `decode` does; return None for what cannot be decoded, as a hint may be."""
    try:
        return decode(body, kind, where=where)
    except IntegrityError:
        return None


def decode_ready(body: bytes, *, where: str) -> Ready:
    """Decode a ready marker of any state. Raises IntegrityError."""
    return decode(body, Ready, where=where)  # type: ignore[arg-type]  # a union is a fine msgspec type
