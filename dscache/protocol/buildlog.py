"""The log of a build, as the bucket holds it while the build runs. Pure.

The object holds the newest part of the log, after a line that says where that part begins:

    [build 1f2e3d4c, log from byte 0]

The beginning is dropped when the log exceeds its limit, and a reader that polls the object can
still find what is new.
"""

from __future__ import annotations

import re

LIMIT_BYTES = 64 << 10
_HEADER = re.compile(rb"\[build (\w+), log from byte (\d{1,18})\]\n")
_PROBE_BYTES = 4 << 10


class BuildLog:
    """Collects the log of one attempt; `body` is the content of its object in the bucket."""

    def __init__(self, attempt: str, limit_bytes: int = LIMIT_BYTES) -> None:
        self._attempt = attempt
        self._limit_bytes = limit_bytes
        self._kept = b""
        self._dropped = 0

    def add(self, text: str) -> None:
        """Append to the log, and drop its beginning when it exceeds the limit."""
        text_bytes = self._kept + text.encode("utf-8", "replace")
        excess = max(len(text_bytes) - self._limit_bytes, 0)
        self._kept, self._dropped = text_bytes[excess:], self._dropped + excess

    @property
    def body(self) -> bytes:
        """The object's content."""
        return f"[build {self._attempt}, log from byte {self._dropped}]\n".encode() + self._kept


class Follower:
    """Finds what is new in a log object that is read repeatedly."""

    def __init__(self) -> None:
        self._attempt = b""
        self._seen = 0

    def new(self, body: bytes) -> str:
        """Return the text added since the last call; all text if another attempt has begun."""
        match = _HEADER.match(body)
        attempt, start = (match[1], int(match[2])) if match else (b"", 0)
        text = body[match.end() :] if match else body
        if attempt != self._attempt:
            self._attempt, self._seen = attempt, 0
        added = text[max(self._seen - start, 0) :]
        self._seen = max(start + len(text), self._seen)
        return added.decode("utf-8", "replace")


def text_of(body: bytes) -> str:
    """Return the log without its header line."""
    return Follower().new(body)


def continued(before: str, after: str) -> str:
    """Return what `after` adds to `before`, both being tails of one growing text.

    The beginning of `after` may have been dropped. If the end of `before` is not in it, all of
    `after` is new.
    """
    if after.startswith(before):
        return after[len(before) :]
    probe = before[-_PROBE_BYTES:]
    at = after.rfind(probe)
    return after[at + len(probe) :] if at >= 0 else after
