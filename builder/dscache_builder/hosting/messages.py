"""Messages between the builder and a handler host, as the builder sees them. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dscache.protocol.manifests import BadSample, FailureKind

from ..failure import HandlerFailure
from ..foreign import BAD_ERROR_BYTES, BAD_TRACEBACK_BYTES, SAMPLE_BYTES, fit
from .host.channel import EndlessLine, LineReader

SHARDS_FOLDER = "shards"  # in the scratch folder; `host` names it too
MAX_NESTING = 64  # of features and options
_SHARD_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.+-]{0,254}")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class HostRequest:
    """What a host should run, and within which limits.

    Attributes:
        entry_point: name of the handler in the group `dscache.handlers`.
        dataset_name: the spec's; shards are named after it.
        config: the spec's `dataset_config`, in canonical form.
        raw: folder with the raw data.
        scratch: folder for this host alone, where shards appear. The caller removes it.
        log: file for the handler's output.
        workers: number of processes; each writes whole shards.
        memory_bytes: limit of each process's address space; None: no limit.
        sample_seconds: limit for one sample with all its variations; None: no limit.
        max_bad_samples: samples that may be left out: a count, or as a float a fraction of all.
    """

    entry_point: str
    dataset_name: str
    config: dict[str, Any]
    raw: Path
    scratch: Path
    log: Path
    workers: int = field(default_factory=_cores)
    memory_bytes: int | None = None
    sample_seconds: float | None = None
    max_bad_samples: int | float = 0


@dataclass(frozen=True)
class Description:
    """A handler with its config: `config` is resolved (for plain handlers unchanged).

    `features` is the features.json document ({} for a plain handler, whose features are known after
    it has run).
    """

    plain: bool
    config: dict[str, Any]
    features: dict[str, Any]


@dataclass(frozen=True)
class PlannedShard:
    """A planned shard: `examples` is its planned number of records; handlers may drop some."""

    index: int
    name: str
    split: str
    samples: int
    examples: int


@dataclass(frozen=True)
class PlanSummary:
    """The shards of a dataset. Plain handlers have none (`shards` == []) and cannot be resumed.

    `digest` covers the samples, their raw files (size, mtime), the resolved config and the division
    into shards; `raw_revision` covers all files of the raw folder (path, size, mtime).
    """

    digest: str
    examples: int
    shards: list[PlannedShard]
    raw_revision: str
    resumable: bool


@dataclass(frozen=True)
class ShardBuilt:
    """A finished shard file at `path`; the caller deletes it. `crc32` as in a zip, `digest` BLAKE3.

    `bad` lists the samples that were left out.
    """

    index: int
    name: str
    split: str
    path: Path
    size: int
    crc32: int
    digest: str
    records: int
    bad: list[BadSample]


@dataclass(frozen=True)
class Advanced:
    """Estimate of the planned examples that are done, of the shards of this `build`."""

    examples_done: int


@dataclass(frozen=True)
class Tick:
    """Nothing happened since the last event; the caller may run its heartbeat."""


Event = ShardBuilt | Advanced | Tick


@dataclass(frozen=True)
class PreviewResult:
    """A drawn contact sheet: a line of statistics, seconds by sample, samples that failed."""

    line: str
    seconds: dict[str, float]
    failed: list[BadSample]


Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Split = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_.+-]{1,100}$")]


class Failed(msgspec.Struct, tag="failure", tag_field="event"):
    """The handler failed, or its process did."""

    kind: FailureKind
    message: str
    sample: str = ""
    traceback: str = ""
    killed: bool = False


class Options(msgspec.Struct, tag="options", tag_field="event"):
    """Answer to `options`: a JSON Schema, or what a plain handler says."""

    options: dict[str, Any]


class Described(msgspec.Struct, tag="described", tag_field="event"):
    """Answer to `describe`; see `Description`."""

    plain: bool
    config: dict[str, Any]
    features: dict[str, Any]


class Planned(msgspec.Struct, tag="planned", tag_field="event"):
    """Answer to `plan`; `shards`: index, name, split, samples, examples of each."""

    digest: str
    examples: Count
    shards: list[tuple[Count, str, Split, Count, Count]]
    raw_revision: str
    resumable: bool


class Features(msgspec.Struct, tag="features", tag_field="event"):
    """Answer to `features`."""

    features: dict[str, Any]


class RawChanges(msgspec.Struct, tag="raw-changes", tag_field="event"):
    """Answer to `raw-changes`: some of the names of the `files` files that have changed."""

    same: bool
    changed: list[str] = []
    files: Count = 0


class FewerWorkers(msgspec.Struct, tag="workers", tag_field="event"):
    """The host goes on with so many workers; `message` says why."""

    workers: Annotated[int, Meta(ge=1, le=2**16)]
    message: str


class Progressed(msgspec.Struct, tag="advanced", tag_field="event"):
    """So many examples are done."""

    done: Count


class Done(msgspec.Struct, tag="done", tag_field="event"):
    """A worker has ended its command."""


class Built(msgspec.Struct, tag="built", tag_field="event"):
    """A shard is finished. `features` are those of a plain handler's records."""

    index: Count
    name: str
    split: Split
    size: Count
    crc32: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    records: Count
    bad: list[BadSample] = []
    features: dict[str, Any] = {}


class Previewed(msgspec.Struct, tag="previewed", tag_field="event"):
    """Answer to `preview`; see `PreviewResult`."""

    line: str
    seconds: dict[str, float]
    failed: list[BadSample]


Message = (
    Failed
    | Options
    | Described
    | Planned
    | Features
    | RawChanges
    | FewerWorkers
    | Progressed
    | Done
    | Built
    | Previewed
)
Answer = TypeVar("Answer", Options, Described, Planned, Features, RawChanges, Previewed, Done)


def parse_messages(reader: LineReader) -> list[Message]:
    """Read what a host has written, and believe nothing: a handler's code may write anything.

    Raises HandlerFailure for what is no message.
    """
    try:
        documents = reader.read()
    except EndlessLine as error:
        raise _nonsense(str(error)) from None
    return [_parsed(document) for document in documents]


def _parsed(document: dict[str, Any]) -> Message:
    try:
        message: Message = msgspec.convert(document, Message)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
        raise _nonsense(str(error)) from None
    if isinstance(message, (Described, Features, Built)) and _depth(message.features) > MAX_NESTING:
        raise _nonsense("features that are nested too deeply")
    if isinstance(message, Options) and _depth(message.options) > MAX_NESTING:
        raise _nonsense("options that are nested too deeply")
    return message


def _nonsense(what: str) -> HandlerFailure:
    return HandlerFailure(
        "handler",
        f"the handler's host sent something that is no message: {what[:300]}; does the handler "
        "write to file descriptors that are not its own?",
    )


def _depth(value: Any) -> int:
    """How deeply a value is nested; no deeper than MAX_NESTING + 1 is looked."""
    level, depth = [value], 0
    while level and depth <= MAX_NESTING:
        level, depth = [inner for outer in level for inner in _items(outer)], depth + 1
    return depth


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def shard_built(message: Built, scratch: Path) -> ShardBuilt:
    """Return the event for a built shard.

    The shard's path follows from its name. The host is not asked for it: the builder deletes the
    file later. Raises HandlerFailure for a name that is not a plain file name.
    """
    if not _SHARD_NAME.fullmatch(message.name):
        raise _nonsense(f"a shard with the name {message.name[:200]!r}")
    return ShardBuilt(
        message.index,
        message.name,
        message.split,
        scratch / SHARDS_FOLDER / message.name,
        message.size,
        message.crc32,
        message.digest,
        message.records,
        [bad_sample(sample) for sample in message.bad],
    )


def bad_sample(sample: BadSample) -> BadSample:
    """A bad sample whose text is made fit."""
    return BadSample(
        sample=fit(sample.sample, SAMPLE_BYTES),
        error=fit(sample.error, BAD_ERROR_BYTES),
        traceback=fit(sample.traceback, BAD_TRACEBACK_BYTES),
        repeatable=sample.repeatable,
    )


def plan_summary(message: Planned) -> PlanSummary:
    """Return the summary of a plan."""
    return PlanSummary(
        fit(message.digest, SAMPLE_BYTES),
        message.examples,
        [PlannedShard(*shard) for shard in message.shards],
        fit(message.raw_revision, SAMPLE_BYTES),
        message.resumable,
    )


def changes_text(message: RawChanges) -> str:
    """Say what has changed of the raw data; "" if nothing has."""
    if message.same:
        return ""
    names, files = [fit(name, SAMPLE_BYTES) for name in message.changed], message.files
    if not names:
        return "it has another revision, or a file that a link leads to has changed"
    more = ", …" if files > len(names) else ""
    return f"{files} file{'s' * (files != 1)}: {', '.join(names)}{more}"


def request_document(
    request: HostRequest, *, workers: int, avoid: list[str], bad_samples: int, examples_done: int
) -> dict[str, Any]:
    """Encode a request for a host.

    Args:
        request: what to run.
        workers: number of processes, at most those of the request.
        avoid: samples that killed an earlier host while it planned.
        bad_samples: those of the shards that earlier hosts finished.
        examples_done: examples of the shards that earlier hosts finished.
    """
    return {
        "entry_point": request.entry_point,
        "dataset_name": request.dataset_name,
        "config": request.config,
        "raw": str(request.raw.absolute()),
        "scratch": str(request.scratch.absolute()),
        "workers": workers,
        "memory_bytes": request.memory_bytes,
        "sample_seconds": request.sample_seconds,
        "max_bad_samples": request.max_bad_samples,
        "avoid": avoid,
        "bad_samples": bad_samples,
        "examples_done": examples_done,
    }
