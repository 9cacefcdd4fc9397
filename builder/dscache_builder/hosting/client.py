"""The builder's side of a handler host: send commands, receive shards, survive its death."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from dscache.terminal import logger

from ..failure import HandlerFailure
from ..foreign import MESSAGE_BYTES, fit
from ..scratch import append_line
from .messages import (
    SHARDS_FOLDER,
    Advanced,
    Answer,
    Built,
    Described,
    Description,
    Done,
    Event,
    Features,
    FewerWorkers,
    HostRequest,
    Options,
    Planned,
    PlanSummary,
    Previewed,
    PreviewResult,
    Progressed,
    RawChanges,
    ShardBuilt,
    Tick,
    bad_sample,
    changes_text,
    plan_summary,
    request_document,
    shard_built,
)
from .running_host import HEARTBEAT_S, HostKilled, RunningHost, log_tail

log = logger("dscache_builder")

MAX_PREVIEW_EXAMPLES = 64  # examples on a contact sheet
PLAN_TRIES = 4  # samples that may kill the host while it plans
RESTART_PAUSES_S = (0.0, 1.0, 5.0)  # before a killed host is started again

T = TypeVar("T")


class HostClient:
    """Runs a handler in separate processes, under its environment's interpreter.

    If they are killed from outside, new ones go on where those were, unless that happens too often
    without a plan or a shard finished in between (`RESTART_PAUSES_S`).

    Use it as a context manager. However the builder ends, the kernel and the host's guard ensure
    that no process of the host is left running.

    Args:
        python: the environment's interpreter.
        request: what to run.
        heartbeat: called at least once a second during every call that blocks; an exception that
            it raises ends that call. Call `close` (or leave the context) afterwards.

    Raises:
        HandlerFailure: from every method, if the handler or its process fails.
    """

    def __init__(
        self, python: Path, request: HostRequest, *, heartbeat: Callable[[], None]
    ) -> None:
        self._python = python
        self._request = request
        self._heartbeat = heartbeat
        self._heartbeat_at = time.monotonic()
        self._workers = max(1, request.workers)
        self._avoid: list[str] = []
        self._killed_on: set[str] = set()
        self._plain = False
        self._features: dict[str, Any] = {}
        self._plan: PlanSummary | None = None
        self._finished: dict[str, ShardBuilt] = {}
        self._restarts = 0
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        document = request_document(
            self._request,
            workers=self._workers,
            avoid=self._avoid,
            bad_samples=sum(len(shard.bad) for shard in self._finished.values()),
            examples_done=sum(shard.records for shard in self._finished.values()),
        )
        self._host = RunningHost(self._python, self._request, document, self._beat)
        self._has_planned = False

    def close(self) -> None:
        """Kill the host's process group, and wait until all of its processes have ended."""
        self._host.close()

    def log_tail(self) -> str:
        """The end of the handler's output, up to 8 KiB."""
        return log_tail(self._request.log)

    # -- commands

    def options(self) -> dict[str, Any]:
        """Import the handler and return its options, whatever the config is.

        That is a JSON Schema, for a plain handler the result of `config_options()`. Raises
        HandlerFailure of kind `environment` if the environment has no such handler.
        """
        answer = self._surviving(lambda: self._ask({"do": "options"}, Options))
        return answer.options

    def describe(self) -> Description:
        """Check the config, and describe it and the features."""
        answer = self._surviving(lambda: self._ask({"do": "describe"}, Described))
        self._plain = answer.plain
        self._features = answer.features
        return Description(self._plain, answer.config, self._features)

    def plan(self) -> PlanSummary:
        """List the samples and divide them into shards.

        Planning may make the first samples to estimate sizes. A sample that kills the process is
        skipped here; the build reports it.
        """
        self._plan = self._surviving(self._make_plan)
        self._restarts = 0
        return self._plan

    def features(self) -> dict[str, Any]:
        """The features.json document; for a plain handler {} until it has run."""
        if not self._features and not self._plain:
            answer = self._surviving(lambda: self._ask({"do": "features"}, Features))
            self._features = answer.features
        return self._features

    def raw_changes(self, exact: str) -> str:
        """What of the raw data has changed since it was planned; "" if nothing has.

        With `exact`, a revision, all of the raw data counts, otherwise what the samples and the
        handler declare.
        """

        def ask() -> RawChanges:
            self._catch_up()
            return self._ask({"do": "raw-changes", "exact": exact}, RawChanges)

        return changes_text(self._surviving(ask))

    def build(self, indices: Iterable[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        """Build these shards of the plan in all workers, started in the given order.

        A shard is started only while `may_start()` is true. An event is yielded at least once a
        second, except while a killed host starts again. A plain handler ignores `indices`: it runs
        once, and then all of its files are yielded, under TFDS names.
        """
        missing = dict.fromkeys([0] if self._plain else indices)
        while missing:
            try:
                for event in self._events(deque(missing), may_start):
                    if isinstance(event, ShardBuilt):
                        missing.pop(event.index, None)
                        self._finished[event.name] = event
                        self._restarts = 0
                    yield event
                return
            except HostKilled as death:
                self._restart(death)

    def _events(self, pending: deque[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        """The events of the current host.

        Files of a plain handler are kept back until it is done: if it is killed, all of them are
        made again, and those of two runs might not fit together.
        """
        self._catch_up()
        kept_back: list[ShardBuilt] = []
        running = 0
        while pending or running:
            while pending and running < self._workers and may_start():
                self._host.send({"do": "build", "index": pending.popleft()})
                running += 1
            message = self._host.receive(HEARTBEAT_S)
            if message is None:
                yield Tick()
            elif isinstance(message, Done):
                running -= 1
            elif isinstance(message, Progressed):
                yield Advanced(message.done)
            elif isinstance(message, FewerWorkers):
                self._workers = message.workers
                log.warning(
                    "%s: %s", self._request.dataset_name, fit(message.message, MESSAGE_BYTES)
                )
            elif isinstance(message, Built):
                self._features = message.features or self._features
                shard = shard_built(message, self._request.scratch)
                if self._plain:
                    kept_back.append(shard)
                else:
                    yield shard
        yield from kept_back

    def preview(self, count: int, to: Path) -> str:
        """Write a contact sheet (PNG) of the first `count` examples; return a line of statistics.

        For a plain handler it shows the first records, so call it after `build`. A preview that
        dies is not tried again.
        """
        return self._previewed(to, samples=None, examples=count).line

    def try_samples(self, count: int, to: Path) -> PreviewResult:
        """Make the examples of the first `count` samples and draw them, for handler authors.

        The result lists the samples that failed.
        """
        return self._previewed(to, samples=count, examples=MAX_PREVIEW_EXAMPLES)

    def _previewed(self, to: Path, samples: int | None, examples: int) -> PreviewResult:
        target = str(to.absolute())
        command = {"do": "preview", "samples": samples, "examples": examples, "to": target}
        answer = self._ask(command, Previewed)
        self._host.wait_for(Done)
        failed = [bad_sample(sample) for sample in answer.failed]
        return PreviewResult(answer.line, answer.seconds, failed)

    def _ask(self, command: dict[str, Any], answer: type[Answer]) -> Answer:
        self._host.send(command)
        return self._host.wait_for(answer)

    # -- plans

    def _make_plan(self) -> PlanSummary:
        while True:
            try:
                plan = plan_summary(self._ask({"do": "plan"}, Planned))
            except HandlerFailure as failure:
                if not self._should_avoid(failure):
                    raise
                self._avoid.append(failure.sample)
                self._start_again()
            else:
                self._has_planned = True
                return plan

    def _should_avoid(self, failure: HandlerFailure) -> bool:
        """Whether to plan without this sample: it crashed, or was killed on for a second time."""
        sample = failure.sample
        if failure.kind not in ("worker-killed", "time-limit") or not sample:
            return False
        if isinstance(failure, HostKilled) and sample not in self._killed_on:
            self._killed_on.add(sample)
            return False
        return len(self._avoid) + 1 < PLAN_TRIES

    def _catch_up(self) -> None:
        """Bring a new host to where the one before was. Raises HandlerFailure for another plan."""
        if self._plan is None or self._has_planned:
            return
        plan = self._make_plan()
        if plan.digest == self._plan.digest:
            return
        changed = plan.raw_revision != self._plan.raw_revision
        cause = "the raw data has changed" if changed else "the handler has planned other shards"
        raise HandlerFailure(
            "raw-data" if changed else "handler",
            "the handler's host was killed, and a new one cannot go on with the shards that are "
            f"missing: {cause} meanwhile; request the dataset again",
        )

    # -- deaths

    def _surviving(self, action: Callable[[], T]) -> T:
        while True:
            try:
                return action()
            except HostKilled as death:
                self._restart(death)

    def _restart(self, death: HostKilled) -> None:
        """Start the host again after a pause. Raises HandlerFailure after too many deaths."""
        if self._restarts == len(RESTART_PAUSES_S):
            raise HandlerFailure(
                death.kind,
                f"{death.message} ({self._restarts + 1} times in a row, with neither a plan nor a "
                "shard finished in between)",
                death.sample,
                death.traceback,
                death.log_tail,
            ) from death
        text = f"{death.message}; starting it again"
        if self._restarts and self._workers > 1:  # it may be memory that is short
            self._workers //= 2
            text += f" with fewer workers: {self._workers}"
        pause_s = RESTART_PAUSES_S[self._restarts]
        self._restarts += 1
        log.warning("%s: %s", self._request.dataset_name, text)
        append_line(self._request.log, text)
        self._pause(pause_s)
        self._start_again()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._beat()
            time.sleep(min(left, HEARTBEAT_S))

    def _start_again(self) -> None:
        """Start a new host, in folders with nothing but the shards that were reported."""
        self._host.close(self._beat)
        shutil.rmtree(self._request.scratch / "work", ignore_errors=True)
        shards = self._request.scratch / SHARDS_FOLDER
        for path in [] if shards.is_symlink() else shards.glob("*"):
            if path.name not in self._finished:
                with suppress(OSError):
                    path.unlink()
        self._start()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at >= HEARTBEAT_S:
            self._heartbeat_at = now
            self._heartbeat()
