"""Run uv and git: never through a shell, without the store's credentials, with a beating heart."""

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
    """A program that ended: exit code (negative: signal), and what it printed."""

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
    """Run a program to its end; `text` is its standard input, `variables` are added to its own.

    `heartbeat` is called at least once a second; what it raises kills the program and its children.
    Raises EnvironmentFailed when the program is not installed.
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
        raise EnvironmentFailed(
            f"{arguments[0]} is needed and not installed on the builder"
        ) from error
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
            to_send = None  # communicate() remembers it, and refuses to be told twice
            heartbeat()
            continue
        return Finished(process.returncode, output, errors[-OUTPUT_CHARS:])


def uv_program() -> str:
    """The uv that was installed with the builder."""
    return os.fspath(uv.find_uv_bin())
