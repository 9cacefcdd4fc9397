"""Messages between the builder and a handler host, as the builder sees them. Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dscache.protocol.manifests import BadSample

from ..failure import HandlerFailure
from ..foreign import BAD_ERROR_BYTES, BAD_TRACEBACK_BYTES, SAMPLE_BYTES, fit

SHARDS_FOLDER = "shards"  # in the scratch folder; `host` names it too
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


def shard_built(message: dict[str, Any], scratch: Path) -> ShardBuilt:
    """Decode the host's message about a built shard.

    The shard's path follows from its name. The host is not asked for it: the builder deletes the
    file later. Raises HandlerFailure for a name that is not a plain file name.
    """
    names = ("index", "name", "split", "size", "crc32", "digest", "records")
    for name in ("name", "split", "digest"):
        if not _SHARD_NAME.fullmatch(message[name]):
            raise HandlerFailure("handler", f"a shard's {name} is {message[name]!r}")
    path = scratch / SHARDS_FOLDER / message["name"]
    bad = [bad_sample(sample) for sample in message["bad"]]
    return ShardBuilt(path=path, bad=bad, **{name: message[name] for name in names})


def bad_sample(message: dict[str, Any]) -> BadSample:
    """Decode a bad sample; its text is made fit."""
    return BadSample(
        sample=fit(message["sample"], SAMPLE_BYTES),
        error=fit(message["error"], BAD_ERROR_BYTES),
        traceback=fit(message.get("traceback", ""), BAD_TRACEBACK_BYTES),
        repeatable=message.get("repeatable", True),
    )


def plan_summary(message: dict[str, Any]) -> PlanSummary:
    """Decode the host's message about the plan."""
    shards = [PlannedShard(*shard) for shard in message["shards"]]
    return PlanSummary(
        fit(message["digest"], SAMPLE_BYTES),
        message["examples"],
        shards,
        fit(message["raw_revision"], SAMPLE_BYTES),
        message["resumable"],
    )


def changes_text(message: dict[str, Any]) -> str:
    """Decode the host's message about changes of the raw data: "" or what has changed."""
    if message["same"]:
        return ""
    names, files = message["changed"], message["files"]
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
