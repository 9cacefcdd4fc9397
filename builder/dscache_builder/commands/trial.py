"""One try of a handler on a few samples, without a bucket, reported as text for its author."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dscache.protocol.manifests import BadSample
from dscache.spec import Spec

from ..environments.environment import in_use
from ..hosting.client import HostClient
from ..hosting.messages import HostRequest, PreviewResult, ShardBuilt

SHEET_NAME = "contact-sheet.png"
LOG_NAME = "handler.log"


@dataclass(frozen=True)
class Trial:
    """What to try: the handler `entry_point` on `samples` samples of the spec's dataset.

    The contact sheet and the handler's log are written to `out`.
    """

    python: Path
    spec: Spec
    entry_point: str
    raw: Path
    out: Path
    samples: int
    sample_seconds: float | None = None

    @property
    def sheet(self) -> Path:
        """Path of the contact sheet."""
        return self.out / SHEET_NAME


def run_trial(trial: Trial, report: Callable[[str], None], heartbeat: Callable[[], None]) -> bool:
    """Run the trial; True if no sample failed. Raises HandlerFailure if the handler did."""
    trial.out.mkdir(parents=True, exist_ok=True)
    log = trial.out / LOG_NAME
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="dscache-try-") as scratch:
        request = HostRequest(
            entry_point=trial.entry_point,
            dataset_name=trial.spec.dataset_name,
            config=trial.spec.dataset_config,
            raw=trial.raw,
            scratch=Path(scratch),
            log=log,
            workers=1,
            sample_seconds=trial.sample_seconds,
        )
        with (
            in_use(trial.python),
            HostClient(trial.python, request, heartbeat=heartbeat) as host,
        ):
            return _run(host, trial, report)


def _run(host: HostClient, trial: Trial, report: Callable[[str], None]) -> bool:
    description = host.describe()
    report(f"options: {_options(description.config)}")
    plan = host.plan()
    if description.plain:
        for event in host.build([], lambda: True):
            if isinstance(event, ShardBuilt):
                report(f"{event.name}: {event.records} records, {event.size / 1e6:.1f} MB")
    else:
        samples = sum(shard.samples for shard in plan.shards)
        report(f"plan: {samples} samples, {plan.examples} examples in {len(plan.shards)} shards")
    result = host.try_samples(trial.samples, trial.sheet)
    for line in [*report_times(result), *map(report_failure, result.failed)]:
        report(line)
    report(f"examples: {result.line}")
    report(f"contact sheet: {trial.sheet}")
    return not result.failed


def _options(config: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in config.items()) or "none"


def report_times(result: PreviewResult) -> list[str]:
    """Lines with the time of each sample in ms, the median, and the slowest sample."""
    if not result.seconds:
        return []
    lines = [f"  {1000 * seconds:8.1f} ms  {sample}" for sample, seconds in result.seconds.items()]
    slowest = max(result.seconds, key=lambda sample: result.seconds[sample])
    median_ms = 1000 * statistics.median(result.seconds.values())
    slowest_ms = 1000 * result.seconds[slowest]
    lines.append(
        f"time: {len(lines)} samples, median {median_ms:.1f} ms, "
        f"slowest {slowest_ms:.1f} ms ({slowest})"
    )
    return lines


def report_failure(bad: BadSample) -> str:
    """A failed sample with its traceback, as text."""
    return f"failed: {bad.error}\n{bad.traceback}".rstrip()
