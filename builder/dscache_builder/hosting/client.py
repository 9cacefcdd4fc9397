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
from typing import Any, Self, TypeVar

from ..child_environ import handler_environment
from ..failure import HandlerFailure
from .host.channel import LineReader, write_line
from .messages import (
    Advanced,
    Built,
    Described,
    Description,
    Done,
    Event,
    Failed,
    Features,
    HostRequest,
    Message,
    Planned,
    PlanSummary,
    Previewed,
    PreviewResult,
    Progressed,
    Tick,
    parse_messages,
    plan_summary,
    request_document,
    shard_built,
)

Answer = TypeVar("Answer", Described, Planned, Features, Previewed, Done)
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
        self._arrived: deque[Message] = deque()
        self._heartbeat_at = time.monotonic()
        self._send(request_document(request, self._avoid))

    def describe(self) -> Description:
        """Import the handler, check the config, and describe options and features."""
        answer = self._ask({"do": "describe"}, Described)
        self._plain = answer.plain
        self._features = answer.features
        return Description(self._plain, answer.options, answer.config, self._features)

    def plan(self) -> PlanSummary:
        """List the samples and divide them into shards.

        Planning may make the first samples to estimate sizes. A sample that kills the process is
        skipped here; the build reports it.
        """
        while True:
            try:
                return plan_summary(self._ask({"do": "plan"}, Planned))
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
            self._features = self._ask({"do": "features"}, Features).features
        return self._features

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
            elif isinstance(message, Done):
                running -= 1
            elif isinstance(message, Progressed):
                yield Advanced(message.done)
            elif isinstance(message, Built):
                self._features = message.features or self._features
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
        answer = self._ask(command, Previewed)
        self._wait_for(Done)
        return PreviewResult(answer.line, answer.seconds, answer.failed)

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

    def _ask(self, command: dict[str, Any], answer: type[Answer]) -> Answer:
        self._send(command)
        return self._wait_for(answer)

    def _wait_for(self, kind: type[Answer]) -> Answer:
        while True:
            message = self._next(HEARTBEAT_S)
            if isinstance(message, kind):
                return message

    def _next(self, timeout_s: float) -> Message | None:
        """The next message, None if there was none within the timeout. Raises reported failures."""
        if not self._arrived and select.select([self._reader.fd], [], [], timeout_s)[0]:
            self._arrived.extend(parse_messages(self._reader))
        self._heartbeat_when_due()
        if self._arrived:
            message = self._arrived.popleft()
            if isinstance(message, Failed):
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

    def _death(self) -> Failed:
        ending = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        died = ending is not None and ending.si_code != os.CLD_EXITED
        kind = "signal" if died else "exit code"
        status = ending.si_status if ending is not None else "?"
        message = f"the handler's host ended with {kind} {status}; see the log"
        return Failed("worker-killed", message)

    def _failure(self, event: Failed) -> HandlerFailure:
        return HandlerFailure(
            event.kind, event.message, event.sample, event.traceback, self.log_tail()
        )

    def log_tail(self) -> str:
        """The end of the handler's output, up to 8 KiB."""
        try:
            with self._request.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
