"""Errors of a local store or builder."""

from __future__ import annotations

from pathlib import Path

from ..errors import DscacheError

TAIL_LINES = 15


class StackError(DscacheError):
    """The local store or builder could not be built, started or stopped."""


def with_tail(message: str, log: Path, since: int = 0) -> str:
    """Append the last lines of a log file, from byte `since` on, and its path to a message."""
    try:
        lines = log.read_bytes()[since:].decode(errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return message
    return "\n".join([message, *(f"  | {line}" for line in lines), f"full log: {log}"])
