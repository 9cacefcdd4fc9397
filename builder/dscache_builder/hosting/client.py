"""The builder's side of a handler host: start it, ask it, take its shards, end it."""

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

from dscache.protocol.manifests import BadSample

from ..child_environ import handler_environment
from ..failure import HandlerFailure
from .host.channel import LineReader, write_line
from .messages import (
    Advanced,
    Description,
    Event,
    HostRequest,
    PlanSummary,
    PreviewResult,
    Tick,
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
    """A handler in a process of its own, under its environment's interpreter.

    Use it as a context manager. Whenever the builder ends, however it ends, the kernel and the
    host's guard see to it that no process of the host stays behind.

    Args:
        python: the environment's interpreter.
        request: what to run.
        heartbeat: called at least once a second during every call that blocks; what it raises ends
            that call. Use `close` (or leave the context) afterwards.

    Raises:
        HandlerFailure: by every method, when the handler or its process fails.
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
                "environment", f"{self._python}: the interpreter cannot be started: {error}"
            ) from error
        finally:
            os.close(command_read)
            os.close(event_write)
        self._closed = False
        self._reader = LineReader(events)
        self._arrived: deque[dict[str, Any]] = deque()
        self._heartbeat_at = time.monotonic()
        self._send(request_document(request, self._avoid))

    def describe(self) -> Description:
        """Import the handler, check the config and say what will come of it."""
        found = self._ask({"do": "describe"}, "described")
        self._plain = found["plain"]
        self._features = found["features"]
        return Description(self._plain, found["options"], found["config"], self._features)

    def plan(self) -> PlanSummary:
        """List the samples and divide them into shards.

        Planning may try the first samples to estimate sizes. One that kills the process is not
        tried again; the build will tell about it.
        """
        while True:
            try:
                found = self._ask({"do": "plan"}, "planned")
                break
            except HandlerFailure as failure:
                died_on_sample = failure.kind in ("worker-killed", "time-limit") and failure.sample
                if not died_on_sample or len(self._avoid) + 1 >= PLAN_TRIES:
                    raise
                self._avoid.append(failure.sample)
                self.close()
                self._start()
        return plan_summary(found)

    def features(self) -> dict[str, Any]:
        """The features.json document; for a plain handler {} until it ran."""
        if not self._features and not self._plain:
            self._features = self._ask({"do": "features"}, "features")["features"]
        return self._features

    def build(self, indices: Iterable[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        """Build these shards of the plan, in the given order, in all workers at once.

        A shard is started only while `may_start()` is true. Something is yielded at least once a
        second. Plain handlers ignore `indices`: they run once and all their files are yielded,
        under TFDS names.
        """
        waiting = deque([0] if self._plain else indices)
        running = 0
        while waiting or running:
            while waiting and running < self._request.workers and may_start():
                self._send({"do": "build", "index": waiting.popleft()})
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
        """Write a contact sheet (PNG) of the first `count` examples; returns a line of statistics.

        For a plain handler it is made from the first records it wrote: after `build`.
        """
        return self._previewed(to, samples=None, examples=count).line

    def try_samples(self, count: int, to: Path) -> PreviewResult:
        """Make the examples of the first `count` samples and draw them; for handlers' authors.

        Samples that fail are listed in the result, not raised.
        """
        return self._previewed(to, samples=count, examples=MAX_PREVIEW_EXAMPLES)

    def _previewed(self, to: Path, samples: int | None, examples: int) -> PreviewResult:
        target = str(to.absolute())
        command = {"do": "preview", "samples": samples, "examples": examples, "to": target}
        found = self._ask(command, "previewed")
        self._wait_for("done")
        failed = [BadSample(**sample) for sample in found["failed"]]
        return PreviewResult(found["line"], found["seconds"], failed)

    def close(self) -> None:
        """Kill the host's process group and wait until all its processes are gone."""
        if self._closed:
            return
        self._closed = True
        # The group's number is not given away before its leader is waited for, here and nowhere
        # else: no other group can be hit.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drain()
        os.close(self._commands)
        os.close(self._reader.fd)

    def _drain(self) -> None:
        """Wait for the end of the events: every process of the host holds that pipe open."""
        deadline = time.monotonic() + CLOSE_S
        while not self._reader.ended and (left := deadline - time.monotonic()) > 0:
            if select.select([self._reader.fd], [], [], left)[0]:
                self._reader.read()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            write_line(self._commands, message)
        except BrokenPipeError:
            while True:  # the host is gone; what it said last is raised
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
        """The next message, or None when there was none for so long. Raises what it reports."""
        if not self._arrived and select.select([self._reader.fd], [], [], timeout_s)[0]:
            self._arrived.extend(self._reader.read())
        self._heartbeat_when_due()
        if self._arrived:
            message = self._arrived.popleft()
            if message["event"] == "failure":
                raise self._failure(message)
            return message
        if self._reader.ended:
            raise self._failure(self._gone())
        return None

    def _heartbeat_when_due(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at >= HEARTBEAT_S:
            self._heartbeat_at = now
            self._heartbeat()

    def _gone(self) -> dict[str, Any]:
        ending = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        died = ending is not None and ending.si_code != os.CLD_EXITED
        how = "signal" if died else "exit code"
        status = ending.si_status if ending is not None else "?"
        message = f"the handler's host ended with {how} {status}; see the log"
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
        """The end of what the handler printed, up to 8 KiB."""
        try:
            with self._request.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
