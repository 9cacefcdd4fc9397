"""One start of a handler host: its process group, its pipes, its end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..child_environ import handler_environment
from ..failure import HandlerFailure
from ..scratch import end_of_file, opened_log
from .host.channel import LineReader, write_line
from .host.process import signal_name
from .messages import Answer, Failed, HostRequest, Message, parse_messages

HEARTBEAT_S = 0.5
LOG_TAIL_BYTES = 8 << 10
CLOSE_S = 10.0
HOST_MAIN = Path(__file__).resolve().parent / "host_main.py"


class HostKilled(HandlerFailure):
    """The host or a worker was killed from outside: a new host may get further."""


class RunningHost:
    """A running host, from its start to `close`. No process of it outlives `close`.

    Args:
        python: the environment's interpreter.
        request: what to run.
        document: the same for the host (`request_document`).
        heartbeat: called at least once a second in calls that block; what it raises ends the call.

    Raises:
        HandlerFailure: from `send` and the methods that receive, if the handler or its process
            fails; HostKilled if it was killed from outside.
    """

    def __init__(
        self,
        python: Path,
        request: HostRequest,
        document: dict[str, Any],
        heartbeat: Callable[[], None],
    ) -> None:
        self._log = request.log
        self._heartbeat = heartbeat
        self._arrived: deque[Message] = deque()
        self._closed = False
        work = request.scratch / "work"
        work.mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command_read, self._commands = os.pipe()
        events, event_write = os.pipe()
        try:
            with opened_log(self._log) as log:
                self._process = subprocess.Popen(
                    [python, "-P", "-s", HOST_MAIN, str(command_read), str(event_write)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=work,
                    env=handler_environment(python, work.resolve(), os.environ),
                    pass_fds=(command_read, event_write),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(self._commands)
            os.close(events)
            raise HandlerFailure(
                "environment", f"{python}: cannot start the interpreter: {error}"
            ) from error
        finally:
            os.close(command_read)
            os.close(event_write)
        self._reader = LineReader(events)
        self._guard = os.pidfd_open(self._process.pid)
        self._write(document)  # if it is dead already, the first command tells

    def _write(self, message: dict[str, Any]) -> bool:
        """Whether the host was there to take the message."""
        try:
            write_line(self._commands, message)
        except BrokenPipeError:
            return False
        return True

    def send(self, message: dict[str, Any]) -> None:
        """Send a command. If the host has ended, raises the last failure that it reported."""
        if not self._write(message):
            while True:
                self.receive(HEARTBEAT_S)

    def wait_for(self, kind: type[Answer]) -> Answer:
        """The next message of this kind; others are dropped."""
        while True:
            message = self.receive(HEARTBEAT_S)
            if isinstance(message, kind):
                return message

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, None if there was none within the timeout. Raises reported failures."""
        dead = not self._arrived and self._wait(timeout_s)
        self._heartbeat()
        if self._arrived:
            message = self._arrived.popleft()
            if isinstance(message, Failed):
                raise self._failure(message)
            return message
        if dead:
            raise self._failure(self._death())
        return None

    def _wait(self, timeout_s: float) -> bool:
        """Wait for messages; whether there can be none, because the guard has ended.

        The end of the pipe would tell too late: a process that a handler forked may hold it open.
        """
        ready, _, _ = select.select([self._reader.fd, self._guard], [], [], timeout_s)
        if self._reader.fd in ready:
            self._arrived.extend(parse_messages(self._reader))
            return self._reader.ended
        return bool(ready)

    def _death(self) -> Failed:
        """How the guard died; it runs no handler code, so a signal came from outside."""
        ending = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        assert ending is not None  # only with WNOHANG
        killed = ending.si_code != os.CLD_EXITED
        how = f"exit code {ending.si_status}"
        if killed:
            how = signal_name(ending.si_status)
        message = f"the handler's host ended with {how}; see the log"
        return Failed("worker-killed", message, killed=killed)

    def _failure(self, event: Failed) -> HandlerFailure:
        failure = HostKilled if event.killed else HandlerFailure
        tail = log_tail(self._log)
        return failure(event.kind, event.message, event.sample, event.traceback, tail)

    def close(self, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Kill the process group, and wait until all of its processes have ended."""
        if self._closed:
            return
        self._closed = True
        # The kernel does not reuse the group's id before its leader is waited for, which happens
        # only here: no other group can be hit.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        try:
            self._drain(heartbeat)
        finally:
            os.close(self._commands)
            os.close(self._reader.fd)
            os.close(self._guard)

    def _drain(self, heartbeat: Callable[[], None]) -> None:
        """Wait for the end of the event pipe, which every process of the host holds open."""
        deadline = time.monotonic() + CLOSE_S
        while not self._reader.ended and (left := deadline - time.monotonic()) > 0:
            if select.select([self._reader.fd], [], [], min(left, HEARTBEAT_S))[0]:
                self._reader.read()
            heartbeat()


def log_tail(log: Path) -> str:
    """The end of the handler's output, up to 8 KiB."""
    return end_of_file(log, LOG_TAIL_BYTES)
