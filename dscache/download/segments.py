"""Segments of the zip, each fetched by one worker, and the runs of members that they belong to.

A run (see `plan_runs`) starts as one segment: several small neighbouring members, or one member. A
large member is shared between workers by cutting its segment in two; one that an interrupted
download left incomplete starts as several segments. Not thread-safe except where stated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence

from ..folder.directory import Directory
from ..protocol.manifests import Member
from .partfile import BLOCK_BYTES, PartFile

OnComplete = Callable[[PartFile], None]
MAX_GAP_BYTES = 64 << 10  # read and dropped, as another request costs more: headers, tiny shards
MIN_RUN_BYTES = 4 << 20
MAX_RUN_BYTES = 64 << 20
TARGET_RUNS = 16


class Segment:
    """The bytes [position, stop) of the zip; `position` advances as they arrive."""

    def __init__(self, run: Run, position: int, stop: int) -> None:
        self.run, self.position, self.stop = run, position, stop

    @property
    def left(self) -> int:
        """Number of missing bytes."""
        return self.stop - self.position


class Run(ABC):
    """Neighbouring members of the zip and their files.

    `on_complete` is called with the file of each member that has arrived completely.
    """

    shareable = False  # whether a segment can be cut

    def __init__(self, folder: Directory, on_complete: OnComplete) -> None:
        self._folder, self._on_complete = folder, on_complete
        self._part: PartFile | None = None

    @abstractmethod
    def open(self) -> tuple[int, list[Segment]]:
        """Return the number of bytes already on disk, and the segments to fetch, in order.

        Raises NoSpace.
        """

    @abstractmethod
    def write(self, data: memoryview, position: int) -> int:
        """Write the bytes of the zip at `position`; return how many of them belong to members.

        Several threads may write different segments. Raises NoSpace.
        """

    def cut(self, segment: Segment, size: int) -> Segment:
        """Shorten a segment to about `size` bytes and return the rest as a new segment.

        Only for runs that are `shareable`.
        """
        raise NotImplementedError(f"{self!r}, {segment!r}, {size}")

    @abstractmethod
    def end_segment(self) -> bool:
        """Note that a segment has arrived completely; return whether it was the last one."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the run, once all its segments have arrived."""

    def close(self) -> None:
        """Close the open file, to be resumed later."""
        if self._part is not None:
            self._part.close()
            self._part = None


class SingleMemberRun(Run):
    """One member, possibly incomplete on disk; several workers may write to it."""

    shareable = True

    def __init__(self, folder: Directory, on_complete: OnComplete, member: Member) -> None:
        super().__init__(folder, on_complete)
        self._member = member
        self._open_segments = 0

    def open(self) -> tuple[int, list[Segment]]:
        self._part = PartFile(self._folder, self._member)
        offset = self._member.offset
        missing = [
            Segment(self, offset + start, offset + stop) for start, stop in self._part.resume()
        ]
        self._open_segments = len(missing)
        return self._member.size - sum(segment.left for segment in missing), missing

    def write(self, data: memoryview, position: int) -> int:
        assert self._part is not None
        self._part.write(data, position - self._member.offset)
        return len(data)

    def cut(self, segment: Segment, size: int) -> Segment:
        cut = segment.position + size
        cut -= (cut - self._member.offset) % BLOCK_BYTES
        later = Segment(self, cut, segment.stop)
        segment.stop = cut
        self._open_segments += 1
        return later

    def end_segment(self) -> bool:
        self._open_segments -= 1
        return self._open_segments == 0

    def finish(self) -> None:
        assert self._part is not None
        part, self._part = self._part, None
        self._on_complete(part)


class MultiMemberRun(Run):
    """Small members, none of them on disk yet; bytes between them are dropped."""

    def __init__(
        self, folder: Directory, on_complete: OnComplete, members: Sequence[Member]
    ) -> None:
        super().__init__(folder, on_complete)
        self._missing = deque(members)

    def open(self) -> tuple[int, list[Segment]]:
        first, last = self._missing[0], self._missing[-1]
        return 0, [Segment(self, first.offset, last.offset + last.size)]

    def write(self, data: memoryview, position: int) -> int:
        member_bytes = 0
        while data:
            member = self._missing[0]
            gap = min(member.offset - position, len(data))
            if gap > 0:
                position += gap
                data = data[gap:]
                continue
            wanted = data[: member.offset + member.size - position]
            self._write(member, wanted, position - member.offset)
            member_bytes += len(wanted)
            position += len(wanted)
            data = data[len(wanted) :]
        return member_bytes

    def end_segment(self) -> bool:
        return True

    def finish(self) -> None:
        """Do nothing: each member was completed when its last byte arrived."""

    def _write(self, member: Member, data: memoryview, at: int) -> None:
        if self._part is None:
            self._part = PartFile(self._folder, member)
        self._part.write(data, at)
        if at + len(data) == member.size:
            part, self._part = self._part, None
            self._missing.popleft()
            self._on_complete(part)


def make_run(folder: Directory, on_complete: OnComplete, members: Sequence[Member]) -> Run:
    """Make the run of these members, whose files are in `folder`."""
    if len(members) == 1:
        return SingleMemberRun(folder, on_complete, members[0])
    return MultiMemberRun(folder, on_complete, members)


def plan_runs(members: Sequence[Member], alone: Collection[str] = ()) -> list[list[Member]]:
    """Group members, given in zip order, so that each group can be read as one range.

    Small neighbours share a range, so a small dataset costs one round trip; runs are small enough
    that several connections get equal shares. Members named in `alone` (which may be incomplete on
    disk) and empty members get a run of their own.
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
