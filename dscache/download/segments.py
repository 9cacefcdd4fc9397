"""Segments of the zip on their way to the disk: each is fetched by one worker.

A run (see `plan_runs`) begins as one segment: several small members in a row, or one
member. A large member is shared by cutting its segment in two, and what an interrupted download
left of one begins as several. Not for several threads but where it says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ..protocol.manifests import Member
from .partfile import BLOCK_BYTES, PartFile

OnComplete = Callable[[PartFile], None]
MAX_GAP_BYTES = 64 << 10  # read and dropped rather than asked around: headers, a skipped tiny shard
MIN_RUN_BYTES = 4 << 20
MAX_RUN_BYTES = 64 << 20
TARGET_RUNS = 16


class Segment:
    """The bytes [position, stop) of the zip; `position` moves on as they come."""

    def __init__(self, run: Run, position: int, stop: int) -> None:
        self.run, self.position, self.stop = run, position, stop

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.stop - self.position


class Run(ABC):
    """Members that lie together in the zip, and their files. Each file whose member has come as a
    whole is handed to `on_complete`."""

    shareable = False  # whether a segment can be cut

    def __init__(self, folder: Path, on_complete: OnComplete) -> None:
        self._folder, self._on_complete = folder, on_complete
        self._part: PartFile | None = None

    @abstractmethod
    def open(self) -> tuple[int, list[Segment]]:
        """Bytes that are there already, and the segments to fetch, in order. Raises NoSpace."""

    @abstractmethod
    def write(self, data: memoryview, position: int) -> int:
        """Take the bytes of the zip at `position`; how many of them belong to members.

        From several threads for different segments. Raises NoSpace.
        """

    def cut(self, segment: Segment, size: int) -> Segment:
        """Leave about the first `size` bytes to a segment and give the rest away, as a new one;
        where runs are `shareable`."""
        raise NotImplementedError(f"{self!r}, {segment!r}, {size}")

    @abstractmethod
    def ended(self) -> bool:
        """Note that a segment has come to its end; whether it was the last one."""

    @abstractmethod
    def finish(self) -> None:
        """All has come."""

    def close(self) -> None:
        """Close what is open, and leave it for a later `open`."""
        if self._part is not None:
            self._part.close()
            self._part = None


class SingleMemberRun(Run):
    """One member, of which something may be there; several workers may write to it."""

    shareable = True

    def __init__(self, folder: Path, on_complete: OnComplete, member: Member) -> None:
        super().__init__(folder, on_complete)
        self._member = member
        self._stretches = 0

    def open(self) -> tuple[int, list[Segment]]:
        self._part = PartFile(self._folder, self._member)
        begin = self._member.offset
        missing = [
            Segment(self, begin + start, begin + stop) for start, stop in self._part.resume()
        ]
        self._stretches = len(missing)
        return self._member.size - sum(segment.left for segment in missing), missing

    def write(self, data: memoryview, position: int) -> int:
        assert self._part is not None
        self._part.write(data, position - self._member.offset)
        return len(data)

    def cut(self, segment: Segment, size: int) -> Segment:
        at = segment.position + size
        at -= (at - self._member.offset) % BLOCK_BYTES
        later = Segment(self, at, segment.stop)
        segment.stop = at
        self._stretches += 1
        return later

    def ended(self) -> bool:
        self._stretches -= 1
        return self._stretches == 0

    def finish(self) -> None:
        assert self._part is not None
        part, self._part = self._part, None
        self._on_complete(part)


class MultiMemberRun(Run):
    """Small members, of which nothing is there; bytes between them are dropped."""

    def __init__(self, folder: Path, on_complete: OnComplete, members: Sequence[Member]) -> None:
        super().__init__(folder, on_complete)
        self._left = deque(members)

    def open(self) -> tuple[int, list[Segment]]:
        first, last = self._left[0], self._left[-1]
        return 0, [Segment(self, first.offset, last.offset + last.size)]

    def write(self, data: memoryview, position: int) -> int:
        taken = 0
        while data:
            member = self._left[0]
            between = min(member.offset - position, len(data))
            if between > 0:
                position += between
                data = data[between:]
                continue
            wanted = data[: member.offset + member.size - position]
            self._write(member, wanted, position - member.offset)
            taken += len(wanted)
            position += len(wanted)
            data = data[len(wanted) :]
        return taken

    def ended(self) -> bool:
        return True

    def finish(self) -> None:
        """Each member was settled when it ended."""

    def _write(self, member: Member, data: memoryview, at: int) -> None:
        if self._part is None:
            self._part = PartFile(self._folder, member)
        self._part.write(data, at)
        if at + len(data) == member.size:
            part, self._part = self._part, None
            self._left.popleft()
            self._on_complete(part)


def make_run(folder: Path, on_complete: OnComplete, members: Sequence[Member]) -> Run:
    """The run of these members, whose files are or will be in `folder`."""
    if len(members) == 1:
        return SingleMemberRun(folder, on_complete, members[0])
    return MultiMemberRun(folder, on_complete, members)


def plan_runs(members: Sequence[Member], alone: Collection[str] = ()) -> list[list[Member]]:
    """Group members, given in zip order, so that each group can be read as one range.

    Small neighbours share a range, so a small dataset costs one round trip; a run stays small
    enough that several connections get equal shares. Names in `alone` (half-fetched members, which
    do not begin at their beginning) and empty members get a run of their own.
    """
    total = sum(member.size for member in members)
    run_bytes = min(max(total // TARGET_RUNS, MIN_RUN_BYTES), MAX_RUN_BYTES)
    runs: list[list[Member]] = []
    for member in members:
        if runs and _joins(runs[-1], member, run_bytes, alone):
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs


def _joins(run: list[Member], member: Member, run_bytes: int, alone: Collection[str]) -> bool:
    first, last = run[0], run[-1]
    if member.name in alone or last.name in alone or not member.size or not last.size:
        return False
    gap = member.offset - (last.offset + last.size)
    return 0 <= gap <= MAX_GAP_BYTES and member.offset + member.size - first.offset <= run_bytes
