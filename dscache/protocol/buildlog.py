"""The log of a build as it lies in the bucket while the build runs. Pure.

The object holds the newest part of the log behind a line that says where that part begins:

    [build 1f2e3d4c, log from byte 0]

so that who reads it again and again can tell what is new, although the beginning is dropped when
the log grows beyond its limit.
"""

from __future__ import annotations

import re

LIMIT_BYTES = 64 << 10
_HEADER = re.compile(rb"\[build (\w+), log from byte (\d+)\]\n")
_PROBE_BYTES = 4 << 10


class BuildLog:
    """Collects the log of one attempt; `body` is what to put into the bucket."""

    def __init__(self, attempt: str, limit_bytes: int = LIMIT_BYTES) -> None:
        self._attempt = attempt
        self._limit_bytes = limit_bytes
        self._kept = b""
        self._dropped = 0

    def add(self, text: str) -> None:
        """Append."""
        grown = self._kept + text.encode("utf-8", "replace")
        over = max(len(grown) - self._limit_bytes, 0)
        self._kept, self._dropped = grown[over:], self._dropped + over

    @property
    def body(self) -> bytes:
        """The object's content."""
        return f"[build {self._attempt}, log from byte {self._dropped}]\n".encode() + self._kept


class Follower:
    """Reads the object again and again, and gives what is new each time."""

    def __init__(self) -> None:
        self._attempt = b""
        self._seen = 0

    def new(self, body: bytes) -> str:
        """What has been added since the last call; all of it when another attempt began."""
        match = _HEADER.match(body)
        attempt, start = (match[1], int(match[2])) if match else (b"", 0)
        text = body[match.end() :] if match else body
        if attempt != self._attempt:
            self._attempt, self._seen = attempt, 0
        added = text[max(self._seen - start, 0) :]
        self._seen = max(start + len(text), self._seen)
        return added.decode("utf-8", "replace")


def text_of(body: bytes) -> str:
    """The log without the line that says where it begins."""
    return Follower().new(body)


def continued(before: str, after: str) -> str:
    """What `after` has more than `before`, where both are the end of one growing text.

    The beginning of `after` may have been dropped. When nothing of `before` is found in it, all of
    `after` is new.
    """
    if after.startswith(before):
        return after[len(before) :]
    probe = before[-_PROBE_BYTES:]
    at = after.rfind(probe)
    return after[at + len(probe) :] if at >= 0 else after
