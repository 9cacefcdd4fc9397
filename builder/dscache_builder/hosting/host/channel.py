"""JSON objects, one a line, over the file descriptors of a pipe."""

from __future__ import annotations

import json
import os
from typing import Any

READ_BYTES = 1 << 16


class LineReader:
    """Collects the lines of one pipe; what is not yet a whole line waits for more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self._chunks: list[bytes] = []
        self._held: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """Read once (blocks when nothing is there) and return the objects that are complete.

        `ended` is set at the end of the pipe. A line torn by the writer's death is dropped.
        """
        chunk = os.read(self.fd, READ_BYTES)
        if not chunk:
            self.ended = True
            return []
        self._chunks.append(chunk)
        if b"\n" not in chunk:
            return []
        *lines, rest = b"".join(self._chunks).split(b"\n")
        self._chunks = [rest] if rest else []
        return [found for found in map(_decoded, lines) if found is not None]

    def first(self) -> dict[str, Any] | None:
        """Wait for one object and hold those that came with it; None at the end of the pipe."""
        found: list[dict[str, Any]] = []
        while not found and not self.ended:
            found = self.read()
        self._held += found[1:]
        return found[0] if found else None

    def held(self) -> list[dict[str, Any]]:
        """The objects that `first` held, once."""
        held, self._held = self._held, []
        return held


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write_line(fd: int, message: dict[str, Any]) -> None:
    """Write one object. Raises BrokenPipeError when nobody reads any more."""
    rest = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    while rest:
        rest = rest[os.write(fd, rest) :]
