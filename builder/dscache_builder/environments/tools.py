"""Run uv and git: without a shell, without the store's credentials, with a heartbeat."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from ..child_environ import tool_environment
from ..failure import EnvironmentFailed

HEARTBEAT_S = 0.5
OUTPUT_CHARS = 16_000


@dataclass(frozen=True)
class Finished:
    """A program that ended: its exit code (negative: a signal) and its output."""

    code: int
    output: str
    errors: str


def run_tool(
    arguments: Sequence[str | Path],
    *,
    cwd: Path,
    heartbeat: Callable[[], None],
    text: str = "",
    variables: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program until it ends.

    Args:
        arguments: the program and its arguments.
        cwd: its working directory.
        heartbeat: called at least once a second; an exception that it raises kills the program and
            its children.
        text: its standard input.
        variables: environment variables besides `tool_environment`.

    Raises:
        EnvironmentFailed: the program is not installed.
    """
    try:
        process = subprocess.Popen(
            [os.fspath(argument) for argument in arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**tool_environment(os.environ), **(variables or {})},
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise EnvironmentFailed(f"{arguments[0]} is not installed on the builder") from error
    with process:
        try:
            return _finish(process, text, heartbeat)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _finish(process: subprocess.Popen[str], text: str, heartbeat: Callable[[], None]) -> Finished:
    to_send: str | None = text
    while True:
        try:
            output, errors = process.communicate(to_send, timeout=HEARTBEAT_S)
        except subprocess.TimeoutExpired:
            to_send = None  # communicate() keeps the first input, and rejects a second one
            heartbeat()
            continue
        return Finished(process.returncode, output, errors[-OUTPUT_CHARS:])


def uv_program() -> str:
    """The path of the uv that was installed with the builder."""
    return os.fspath(uv.find_uv_bin())
