"""Which shards go into which part of the multipart upload. Pure.

Parts are runs of [local header + shard] in plan order, ended at a shard boundary once they hold
max(5 MiB, estimated total ÷ 9,000). The last part ends with the TFDS files and the central
directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dscache.protocol.manifests import Member, PartRecord, ShardRecord
from dscache.store.objects import Part
from dscache.store.upload import BodyPiece, FilePiece

from . import zip_writer

MIN_PART_BYTES = 5 << 20  # S3: each part but the last
MAX_PART_BYTES = 5 << 30  # S3: any part
PARTS_PLANNED = 9_000  # of 10,000 allowed: room for a wrong estimate


@dataclass(frozen=True)
class FinishedShard:
    """A shard on disk that is not uploaded yet."""

    record: ShardRecord
    path: Path


@dataclass(frozen=True)
class FilledPart:
    """A part that is ready for upload."""

    number: int
    shards: Sequence[FinishedShard]
    tail: bytes = b""

    @property
    def segments(self) -> list[BodyPiece]:
        """The pieces of the part's body."""
        segments: list[BodyPiece] = []
        for shard in self.shards:
            record = shard.record
            segments.append(zip_writer.local_header(record.name, record.size, record.crc32))
            segments.append(FilePiece(shard.path, record.size))
        return [*segments, self.tail] if self.tail else segments

    @property
    def records(self) -> list[ShardRecord]:
        """The shards' records, for the checkpoint."""
        return [shard.record for shard in self.shards]


@dataclass
class Packer:
    """Takes finished shards in any order and returns filled parts in plan order."""

    next_part: int
    next_shard: int
    _waiting: dict[int, FinishedShard] = field(default_factory=dict)
    _open: list[FinishedShard] = field(default_factory=list)
    _open_bytes: int = 0

    def add(self, index: int, shard: FinishedShard, part_bytes: int) -> list[FilledPart]:
        """Add the shard with this plan index; return the parts that are full now."""
        self._waiting[index] = shard
        filled = []
        while self.next_shard in self._waiting:
            following = self._waiting.pop(self.next_shard)
            self.next_shard += 1
            self._open.append(following)
            self._open_bytes += stored_bytes(following.record)
            if self._open_bytes >= part_bytes:
                filled.append(self._seal())
        return filled

    def last(self, tail: bytes) -> FilledPart:
        """The last part: the remaining shards, and the tail of the zip."""
        assert not self._waiting, "a shard before these is missing"
        return self._seal(tail)

    def _seal(self, tail: bytes = b"") -> FilledPart:
        part = FilledPart(self.next_part, tuple(self._open), tail)
        self.next_part += 1
        self._open, self._open_bytes = [], 0
        return part


def part_bytes(estimated_total: int) -> int:
    """Size from which on a part is complete, in bytes."""
    return max(MIN_PART_BYTES, estimated_total // PARTS_PLANNED)


def stored_bytes(record: ShardRecord) -> int:
    """Bytes the shard takes in the zip: its local header and its data."""
    return len(zip_writer.local_header(record.name, record.size, record.crc32)) + record.size


def keep_prefix(recorded: Sequence[PartRecord], listed: Iterable[Part]) -> list[PartRecord]:
    """The leading recorded parts that the store lists with the same number, size and etag."""
    stored = {part.number: part for part in listed}
    kept: list[PartRecord] = []
    for record in recorded:
        part = stored.get(record.number)
        if part is None or (part.size, part.etag) != (record.size, record.etag):
            break
        kept.append(record)
    return kept


def member_table(shards: Iterable[ShardRecord]) -> list[Member]:
    """The zip members of these shards, with their offsets."""
    members: list[Member] = []
    for shard in shards:
        append_member(
            members, shard.name, shard.size, shard.crc32, shard.digest, shard.records, shard.split
        )
    return members


def append_member(
    members: list[Member],
    name: str,
    size: int,
    crc32: int,
    digest: str,
    records: int = 0,
    split: str = "",
) -> None:
    """Append a member after the others."""
    header = zip_writer.local_header(name, size, crc32)
    members.append(
        Member(
            name=name,
            offset=zip_writer.data_end(members) + len(header),
            size=size,
            crc32=crc32,
            digest=digest,
            records=records,
            split=split,
        )
    )
