"""Stretches of the zip on their way to the disk: each is fetched by one worker.

A run (see `selection.plan_runs`) begins as one stretch: several small members in a row, or one
member. A large member is shared by cutting its stretch in two, and what an interrupted download
left of one begins as several. Not for several threads but where it says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ..protocol.manifests import Member
from .partfile import BLOCK_BYTES, PartFile

Settle = Callable[[PartFile], None]


class Stretch:
    """The bytes [position, stop) of the zip; `position` moves on as they come."""

    def __init__(self, run: Run, position: int, stop: int) -> None:
        self.run, self.position, self.stop = run, position, stop

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.stop - self.position


class Run(ABC):
    """Members that lie together in the zip, and their files. Each file whose member has come as a
    whole is handed to `settle`."""

    shareable = False  # whether a stretch can be cut

    def __init__(self, folder: Path, settle: Settle) -> None:
        self._folder, self._settle = folder, settle
        self._part: PartFile | None = None

    @abstractmethod
    def open(self) -> tuple[int, list[Stretch]]:
        """Bytes that are there already, and the stretches to fetch, in order. Raises NoSpace."""

    @abstractmethod
    def write(self, data: memoryview, position: int) -> int:
        """Take the bytes of the zip at `position`; how many of them belong to members.

        From several threads for different stretches. Raises NoSpace.
        """

    def cut(self, stretch: Stretch, size: int) -> Stretch:
        """Leave about the first `size` bytes to a stretch and give the rest away, as a new one;
        where runs are `shareable`."""
        raise NotImplementedError(f"{self!r}, {stretch!r}, {size}")

    @abstractmethod
    def ended(self) -> bool:
        """Note that a stretch has come to its end; whether it was the last one."""

    @abstractmethod
    def finish(self) -> None:
        """All has come."""

    def close(self) -> None:
        """Close what is open, and leave it for a later `open`."""
        if self._part is not None:
            self._part.close()
            self._part = None


class OneMember(Run):
    """One member, of which something may be there; several workers may write to it."""

    shareable = True

    def __init__(self, folder: Path, settle: Settle, member: Member) -> None:
        super().__init__(folder, settle)
        self._member = member
        self._stretches = 0

    def open(self) -> tuple[int, list[Stretch]]:
        self._part = PartFile(self._folder, self._member)
        begin = self._member.offset
        missing = [
            Stretch(self, begin + start, begin + stop) for start, stop in self._part.resume()
        ]
        self._stretches = len(missing)
        return self._member.size - sum(stretch.left for stretch in missing), missing

    def write(self, data: memoryview, position: int) -> int:
        assert self._part is not None
        self._part.write(data, position - self._member.offset)
        return len(data)

    def cut(self, stretch: Stretch, size: int) -> Stretch:
        at = stretch.position + size
        at -= (at - self._member.offset) % BLOCK_BYTES
        later = Stretch(self, at, stretch.stop)
        stretch.stop = at
        self._stretches += 1
        return later

    def ended(self) -> bool:
        self._stretches -= 1
        return self._stretches == 0

    def finish(self) -> None:
        assert self._part is not None
        part, self._part = self._part, None
        self._settle(part)


class SeveralMembers(Run):
    """Small members, of which nothing is there; bytes between them are dropped."""

    def __init__(self, folder: Path, settle: Settle, members: Sequence[Member]) -> None:
        super().__init__(folder, settle)
        self._left = deque(members)

    def open(self) -> tuple[int, list[Stretch]]:
        first, last = self._left[0], self._left[-1]
        return 0, [Stretch(self, first.offset, last.offset + last.size)]

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
            self._settle(part)


def run_of(folder: Path, settle: Settle, members: Sequence[Member]) -> Run:
    """The run of these members, whose files are or will be in `folder`."""
    if len(members) == 1:
        return OneMember(folder, settle, members[0])
    return SeveralMembers(folder, settle, members)
