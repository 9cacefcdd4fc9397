"""The first process of a host: starts the serving process, watches it, and cleans up.

It never runs handler code, so no handler can block it. When the builder or the serving process has
ended, it kills the whole process group, including programs that a handler started. Imports only the
standard library.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .channel import LineReader, write_line
from .current_sample import CurrentSample, SampleStatus
from .deaths import describe_death, was_killed
from .process import EXIT_OUT_OF_MEMORY, Ending, die_with_parent, kill, no_core_files, reap

POLL_MS = 250


def main(argv: Sequence[str]) -> NoReturn:
    """Run the host: ``argv[1:]`` are the descriptors of commands and events, and a state file."""
    commands, events = LineReader(int(argv[1])), int(argv[2])
    if len(argv) > 3:
        _serve(lambda service: service.resume(argv[3], commands, events))
    builder = os.getppid()
    request = commands.first()
    if request is None:
        raise SystemExit("the builder ended before it sent a request")
    current = CurrentSample()
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(guard)
        _serve(lambda service: service.start(request, commands, events, current))
    try:
        _watch(child, builder, commands.fd, events, current, request)
    finally:
        os.killpg(0, signal.SIGKILL)
    raise SystemExit(1)


def _serve(run: Callable[[Any], object]) -> NoReturn:
    """Run the service, which needs the packages of every environment, and end this process."""
    no_core_files()
    try:
        from . import service
    except ImportError as error:
        events = int(sys.argv[2])
        message = f"the environment lacks a package that the builder needs: {error}"
        write_line(events, {"event": "failure", "kind": "environment", "message": message})
        os._exit(0)
    try:
        run(service)
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    os._exit(0)


def _watch(
    child: int,
    builder: int,
    commands: int,
    events: int,
    current: CurrentSample,
    request: dict[str, Any],
) -> None:
    """Return when the builder or the child has ended; report how the child died."""
    limit_s = request.get("sample_seconds")
    poll = select.poll()
    poll.register(commands, 0)  # nothing but the hang-up
    poll.register(os.pidfd_open(child), select.POLLIN)
    while os.getppid() == builder:
        ready = poll.poll(POLL_MS)
        if any(fd == commands for fd, _ in ready):
            return
        status = current.read()
        overdue = status.overdue(time.monotonic(), limit_s)
        if overdue:
            kill(child)
        ending = reap(child, block=overdue)
        if ending is not None:
            os.write(events, b"\n")  # the child may have died within a line
            write_line(events, _death_event(ending, status, overdue, request))
            return


def _death_event(
    ending: Ending, status: SampleStatus, overdue: bool, request: dict[str, Any]
) -> dict[str, Any]:
    sample = status.sample if status.started_at else ""
    kind, message = describe_death(
        ending, sample, overdue, request.get("sample_seconds"), request.get("memory_bytes")
    )
    killed = was_killed(ending, overdue)
    return {
        "event": "failure", "kind": kind, "message": message, "sample": sample, "killed": killed,
    }  # fmt: skip
