"""JSON objects, one per line, over a pipe."""

from __future__ import annotations

import json
import os
from typing import Any

READ_BYTES = 1 << 16
LINE_BYTES = 64 << 20  # a plan of 500,000 shards


class EndlessLine(Exception):
    """The other side writes and never ends the line."""


class LineReader:
    """Reads JSON lines from one pipe; an incomplete line is kept until the rest arrives."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self._chunks: list[bytes] = []
        self._line_bytes = 0
        self._held: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """Read once (blocking) and return the objects that are complete.

        Sets `ended` at the end of the pipe. A line that the writer's death cut off is dropped, as
        is any other that is no object. Raises EndlessLine.
        """
        chunk = os.read(self.fd, READ_BYTES)
        if not chunk:
            self.ended = True
            return []
        self._chunks.append(chunk)
        self._line_bytes += len(chunk)
        if b"\n" not in chunk:
            if self._line_bytes > LINE_BYTES:
                self._chunks, self._line_bytes = [], 0
                raise EndlessLine(f"a message of more than {LINE_BYTES >> 20} MiB")
            return []
        *lines, incomplete = b"".join(self._chunks).split(b"\n")
        self._chunks, self._line_bytes = [incomplete], len(incomplete)
        return [message for message in map(_decoded, filter(None, lines)) if message is not None]

    def first(self) -> dict[str, Any] | None:
        """Wait for one object, and keep others for `held`; None at the end of the pipe."""
        messages: list[dict[str, Any]] = []
        while not messages and not self.ended:
            messages = self.read()
        self._held += messages[1:]
        return messages[0] if messages else None

    def held(self) -> list[dict[str, Any]]:
        """Return the objects that `first` kept, once."""
        held, self._held = self._held, []
        return held


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _encoded(message: Any) -> bytes:
    """JSON in ASCII, so that lone surrogates (of a file's name, in a traceback) get through."""
    return json.dumps(message, separators=(",", ":")).encode()


def write_line(fd: int, message: dict[str, Any]) -> None:
    """Write one object. Raises BrokenPipeError if the reader has ended."""
    unwritten = memoryview(_encoded(message) + b"\n")
    while unwritten:
        unwritten = unwritten[os.write(fd, unwritten) :]
