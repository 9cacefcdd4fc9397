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

BEAT_S = 0.5
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
    beat: Callable[[], None],
    text: str = "",
    variables: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program to its end; `text` is its standard input, `variables` are added to its own.

    `beat` is called at least once a second; what it raises kills the program, with its children.
    Raises EnvironmentFailed when the program is not there.
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
            return _finish(process, text, beat)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _finish(process: subprocess.Popen[str], text: str, beat: Callable[[], None]) -> Finished:
    to_send: str | None = text
    while True:
        try:
            output, errors = process.communicate(to_send, timeout=BEAT_S)
        except subprocess.TimeoutExpired:
            to_send = None  # communicate() remembers it, and refuses to be told twice
            beat()
            continue
        return Finished(process.returncode, output, errors[-OUTPUT_CHARS:])


def uv_program() -> str:
    """The uv that was installed with the builder."""
    return os.fspath(uv.find_uv_bin())
