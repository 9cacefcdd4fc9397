"""The builder's side of a handler host: start it, send commands, receive shards, end it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..child_environ import handler_environment
from ..failure import HandlerFailure
from ..scratch import end_of_file
from .host.channel import LineReader, write_line
from .messages import (
    Advanced,
    Description,
    Event,
    HostRequest,
    PlanSummary,
    PreviewResult,
    Tick,
    bad_sample,
    changes_text,
    plan_summary,
    request_document,
    shard_built,
)

HEARTBEAT_S = 0.5
LOG_TAIL_BYTES = 8 << 10
CLOSE_S = 10.0
MAX_PREVIEW_EXAMPLES = 64  # examples on a contact sheet
PLAN_TRIES = 4  # samples that may kill the host while it plans
HOST_MAIN = Path(__file__).resolve().parent / "host_main.py"


class HostClient:
    """Runs a handler in a separate process, under its environment's interpreter.

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
        self._avoid: list[str] = []
        self._plain = False
        self._features: dict[str, Any] = {}
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
        request = self._request
        work = request.scratch / "work"
        work.mkdir(parents=True, exist_ok=True)
        request.log.parent.mkdir(parents=True, exist_ok=True)
        command_read, self._commands = os.pipe()
        events, event_write = os.pipe()
        try:
            with request.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [self._python, "-P", "-s", HOST_MAIN, str(command_read), str(event_write)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=work,
                    env=handler_environment(self._python, work.resolve(), os.environ),
                    pass_fds=(command_read, event_write),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(self._commands)
            os.close(events)
            raise HandlerFailure(
                "environment", f"{self._python}: cannot start the interpreter: {error}"
            ) from error
        finally:
            os.close(command_read)
            os.close(event_write)
        self._closed = False
        self._reader = LineReader(events)
        self._arrived: deque[dict[str, Any]] = deque()
        self._heartbeat_at = time.monotonic()
        self._send(request_document(request, self._avoid))

    def options(self) -> dict[str, Any]:
        """Import the handler and return its options, whatever the config is.

        That is a JSON Schema, for a plain handler the result of `config_options()`. Raises
        HandlerFailure of kind `environment` if the environment has no such handler.
        """
        options: dict[str, Any] = self._ask({"do": "options"}, "options")["options"]
        return options

    def describe(self) -> Description:
        """Check the config, and describe it and the features."""
        answer = self._ask({"do": "describe"}, "described")
        self._plain = answer["plain"]
        self._features = answer["features"]
        return Description(self._plain, answer["config"], self._features)

    def plan(self) -> PlanSummary:
        """List the samples and divide them into shards.

        Planning may make the first samples to estimate sizes. A sample that kills the process is
        skipped here; the build reports it.
        """
        while True:
            try:
                return plan_summary(self._ask({"do": "plan"}, "planned"))
            except HandlerFailure as failure:
                died_on_sample = failure.kind in ("worker-killed", "time-limit") and failure.sample
                if not died_on_sample or len(self._avoid) + 1 >= PLAN_TRIES:
                    raise
                self._avoid.append(failure.sample)
                self.close()
                self._start()

    def features(self) -> dict[str, Any]:
        """The features.json document; for a plain handler {} until it has run."""
        if not self._features and not self._plain:
            self._features = self._ask({"do": "features"}, "features")["features"]
        return self._features

    def raw_changes(self, exact: str) -> str:
        """What of the raw data has changed since it was planned; "" if nothing has.

        With `exact`, a revision, all of the raw data counts, otherwise what the samples and the
        handler declare.
        """
        return changes_text(self._ask({"do": "raw-changes", "exact": exact}, "raw-changes"))

    def build(self, indices: Iterable[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        """Build these shards of the plan in all workers, started in the given order.

        A shard is started only while `may_start()` is true. An event is yielded at least once a
        second. A plain handler ignores `indices`: it runs once, and all of its files are yielded,
        under TFDS names.
        """
        pending = deque([0] if self._plain else indices)
        running = 0
        while pending or running:
            while pending and running < self._request.workers and may_start():
                self._send({"do": "build", "index": pending.popleft()})
                running += 1
            message = self._next(HEARTBEAT_S)
            if message is None:
                yield Tick()
            elif message["event"] == "done":
                running -= 1
            elif message["event"] == "advanced":
                yield Advanced(message["done"])
            elif message["event"] == "built":
                self._features = message.get("features") or self._features
                yield shard_built(message, self._request.scratch)

    def preview(self, count: int, to: Path) -> str:
        """Write a contact sheet (PNG) of the first `count` examples; return a line of statistics.

        For a plain handler it shows the first records, so call it after `build`.
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
        answer = self._ask(command, "previewed")
        self._wait_for("done")
        failed = [bad_sample(sample) for sample in answer["failed"]]
        return PreviewResult(answer["line"], answer["seconds"], failed)

    def close(self) -> None:
        """Kill the host's process group, and wait until all of its processes have ended."""
        if self._closed:
            return
        self._closed = True
        # The kernel does not reuse the group's id before its leader is waited for, which happens
        # only here: no other group can be hit.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drain()
        os.close(self._commands)
        os.close(self._reader.fd)

    def _drain(self) -> None:
        """Wait for the end of the event pipe, which every process of the host holds open."""
        deadline = time.monotonic() + CLOSE_S
        while not self._reader.ended and (left := deadline - time.monotonic()) > 0:
            if select.select([self._reader.fd], [], [], left)[0]:
                self._reader.read()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            write_line(self._commands, message)
        except BrokenPipeError:
            while True:  # the host has ended: raise the last failure that it reported
                self._next(HEARTBEAT_S)

    def _ask(self, command: dict[str, Any], answer: str) -> dict[str, Any]:
        self._send(command)
        return self._wait_for(answer)

    def _wait_for(self, event: str) -> dict[str, Any]:
        while True:
            message = self._next(HEARTBEAT_S)
            if message is not None and message["event"] == event:
                return message

    def _next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message, None if there was none within the timeout. Raises reported failures."""
        if not self._arrived and select.select([self._reader.fd], [], [], timeout_s)[0]:
            self._arrived.extend(self._reader.read())
        self._heartbeat_when_due()
        if self._arrived:
            message = self._arrived.popleft()
            if message["event"] == "failure":
                raise self._failure(message)
            return message
        if self._reader.ended:
            raise self._failure(self._death())
        return None

    def _heartbeat_when_due(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at >= HEARTBEAT_S:
            self._heartbeat_at = now
            self._heartbeat()

    def _death(self) -> dict[str, Any]:
        ending = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        died = ending is not None and ending.si_code != os.CLD_EXITED
        kind = "signal" if died else "exit code"
        status = ending.si_status if ending is not None else "?"
        message = f"the handler's host ended with {kind} {status}; see the log"
        return {"kind": "worker-killed", "message": message}

    def _failure(self, event: dict[str, Any]) -> HandlerFailure:
        return HandlerFailure(
            event["kind"],
            event["message"],
            event.get("sample", ""),
            event.get("traceback", ""),
            self.log_tail(),
        )

    def log_tail(self) -> str:
        """The end of the handler's output, up to 8 KiB."""
        return end_of_file(self._request.log, LOG_TAIL_BYTES)
