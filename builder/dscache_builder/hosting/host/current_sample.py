"""The sample that a process is working on, in memory shared with its supervisor.

Writing it takes no system call, so it is cheap enough for every sample, and it survives a crash.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

MEMORY_BYTES = 4096
_FIELDS = struct.Struct("<dqH")  # monotonic start in s (0: idle), samples begun, length of the id
_MAX_ID_BYTES = MEMORY_BYTES - _FIELDS.size


@dataclass(frozen=True)
class SampleStatus:
    """The sample in progress; `started_at` is CLOCK_MONOTONIC in s, 0 for none."""

    started_at: float
    begun: int
    sample: str

    def overdue(self, now: float, limit_s: float | None) -> bool:
        """Whether the sample has taken longer than the limit."""
        return limit_s is not None and self.started_at > 0 and now - self.started_at > limit_s


class CurrentSample:
    """Written by one process, read by its supervisor; create it before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, MEMORY_BYTES)
        self._begun = 0

    def begin(self, sample: str, now: float) -> None:
        """Work on `sample` starts now, and on the previous one has ended."""
        self._begun += 1
        encoded = sample.encode("utf-8", "surrogatepass")[:_MAX_ID_BYTES]
        size = _FIELDS.size
        self._memory[size : size + len(encoded)] = encoded
        _FIELDS.pack_into(self._memory, 0, now, self._begun, len(encoded))

    def rest(self) -> None:
        """No sample is in progress; the count of begun samples starts again at 0."""
        self._begun = 0
        _FIELDS.pack_into(self._memory, 0, 0.0, 0, 0)

    def read(self) -> SampleStatus:
        """The sample in progress. `begun` counts the samples since the last `rest`."""
        started_at, begun, length = _FIELDS.unpack_from(self._memory, 0)
        encoded = self._memory[_FIELDS.size : _FIELDS.size + length]
        return SampleStatus(started_at, begun, encoded.decode("utf-8", "replace"))

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()
