"""What `dscache verify` decides from bytes: zip structure, framing, shards compared."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.protocol.manifests import BadSample, Live, Member
from dscache.spec import Spec
from dscache.verify.recordcheck import MAX_PROBLEMS, RecordCheck
from dscache.verify.zipcheck import directory_problems, largest_directory, local_problems
from dscache_builder.attempt.parts import append_member
from dscache_builder.attempt.zip_writer import central_directory, data_end, local_header
from dscache_builder.commands.verify_shard import compare
from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.messages import PlannedShard, PlanSummary, ShardBuilt
from dscache_sdk.records import RecordWriter

GIB = 1 << 30
TABLES = {
    "small": [10, 20, 0],
    "offsets beyond 4 GiB": [3 * GIB, 3 * GIB, 5],
    "a size beyond 4 GiB": [5 * GIB, 1],
    "more than 65,535 members": [1] * 65_536,
}


def table(sizes: list[int]) -> list[Member]:
    members: list[Member] = []
    for number, size in enumerate(sizes):
        append_member(members, f"m{number}", size, number, "00")
    return members


@pytest.mark.parametrize("sizes", TABLES.values(), ids=TABLES)
def test_what_the_builder_writes_has_no_problems(sizes: list[int]) -> None:
    members = table(sizes)
    tail = central_directory(members)
    assert list(directory_problems(tail, data_end(members), members)) == []
    assert len(tail) <= largest_directory(members)
    for member in members[:3]:
        header = local_header(member.name, member.size, member.crc32)
        assert list(local_problems(header, member)) == []


@pytest.mark.parametrize("sizes", list(TABLES.values())[:3], ids=list(TABLES)[:3])
def test_another_table_is_noticed(sizes: list[int]) -> None:
    members = table(sizes)
    tail, start = central_directory(members), data_end(members)
    renamed = [*members[:-1], msgspec.structs.replace(members[-1], name="other")]
    assert len(list(directory_problems(tail, start, renamed))) == 2
    resized = [msgspec.structs.replace(members[0], crc32=77), *members[1:]]
    (problem,) = directory_problems(tail, start, resized)
    assert "CRC-32 00000000 instead of 0000004d" in problem
    assert list(directory_problems(tail[:-1], start, members))
    assert list(directory_problems(tail, start + 1, members))
    swapped = [members[1], members[0], *members[2:]]
    assert any("order" in problem for problem in directory_problems(tail, start, swapped))


def test_damaged_directories_are_told_never_raised() -> None:
    members = table([10, 3 * GIB, 3 * GIB])
    tail, start = central_directory(members), data_end(members)
    for at in range(len(tail)):
        changed = bytearray(tail)
        changed[at] ^= 0xFF
        list(directory_problems(bytes(changed), start, members))
        list(directory_problems(tail[:at], start, members))
    header = local_header("name", 5 * GIB, 1)
    for at in range(len(header)):
        changed = bytearray(header)
        changed[at] ^= 0xFF
        list(local_problems(bytes(changed), table([5 * GIB])[0]))
        assert list(local_problems(header[:at], table([5 * GIB])[0]))


def record_file(folder: Path, sizes: list[int]) -> bytes:
    path = folder / "records"
    with RecordWriter(path) as writer:
        for size in sizes:
            writer.write(bytes(size))
    return path.read_bytes()


def checked(content: bytes, piece: int) -> RecordCheck:
    check = RecordCheck(len(content))
    view = memoryview(content)
    for at in range(0, len(content), piece):
        check.update(view[at : at + piece])
    check.finish()
    return check


@pytest.mark.parametrize("piece", [1, 3, 16, 1 << 20])
def test_framing_in_pieces_of_any_size(tmp_path: Path, piece: int) -> None:
    content = record_file(tmp_path, [0, 1, 100, 0, 5000])
    check = checked(content, piece)
    assert (check.records, check.problems) == (5, [])
    assert checked(content[:-1], piece).problems
    assert checked(content[:20], piece).problems == [
        "record 1 at byte 16: the file ends within it",
    ]
    assert checked(b"", 1).problems == []


def test_damaged_records_are_named_and_the_list_is_bounded(tmp_path: Path) -> None:
    content = bytearray(record_file(tmp_path, [100] * 20))
    for record in range(3, 20):
        content[record * 116 + 50] ^= 1
    check = checked(bytes(content), 7)
    assert check.records == 20
    assert check.problems[0] == "record 3 at byte 348: the checksum of its data differs"
    assert (len(check.problems), check.more) == (MAX_PROBLEMS, 17 - MAX_PROBLEMS)
    content[0:8] = struct.pack("<Q", 1 << 60)
    assert "checksum of its length" in checked(bytes(content), 5).problems[0]


@given(at=st.integers(0, 347), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    content = bytearray(record_file(tmp_path_factory.getbasetemp(), [100, 100, 100]))
    content[at] ^= 1 << bit
    check = checked(bytes(content), 64)
    assert check.problems or check.records != 3


# -- shards compared

SHARD = Member(name="a-00000", offset=40, size=9, crc32=1, digest="d1", records=2, split="train")


def marker(**changes: Any) -> Live:
    fields = {"raw_revision": "r1", "lock_digest": "l1", **changes}
    return Live(
        spec=Spec.of("photos", "1.0.0", {}), generation=0, zip_key="z", zip_etag="e",
        zip_size=99, seal="s", members=[SHARD], **fields,
    )  # fmt: skip


def shard_built(
    digest: str, name: str = "a-00000", bad: tuple[str, ...] = (), records: int = 2
) -> ShardBuilt:
    left_out = [BadSample(sample=sample, error="x") for sample in bad]
    return ShardBuilt(0, name, "train", Path("none"), 9, 1, digest, records, left_out)


def plan(revision: str = "r1") -> PlanSummary:
    return PlanSummary("p", 2, [PlannedShard(0, "a-00000", "train", 2, 2)], revision, True)


@pytest.mark.parametrize(
    ("built", "revision", "code", "words"),
    [
        (shard_built("d1"), "r1", 0, ""),
        (shard_built("d1"), "r2", 0, ""),
        (shard_built("d2"), "r1", 8, "not repeatable"),
        (shard_built("d2"), "r2", 3, "the raw data has changed since"),
        (shard_built("d2", bad=("s",)), "r1", 8, "1 samples failed now"),
        (shard_built("d1", name="b"), "r1", 8, "now give other shards"),
        (None, "r1", 8, "now give other shards"),
        (None, "r2", 3, "the raw data has changed since"),
    ],
)
def test_what_two_digests_mean(
    built: ShardBuilt | None, revision: str, code: int, words: str
) -> None:
    result = compare("k", marker(), 0, plan(revision), built, lock_digest="l1")
    assert result.exit_code == code
    assert words in result.problem
    assert bool(words) == bool(result.problem)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "a plain handler"),
        ([BadSample(sample="s", error="x", repeatable=False)], "left out because their worker"),
    ],
)
def test_a_dataset_that_is_not_repeatable_may_differ(bad: list[BadSample], words: str) -> None:
    live = marker(repeatable=False, bad_samples=bad)
    built = shard_built("d2", records=3)
    result = compare("k", live, 0, plan(), built, lock_digest="l1")
    assert result.exit_code == 8
    assert words in result.problem
    assert "the handler is not repeatable" not in result.problem


def test_a_sample_left_out_of_another_shard_explains_nothing() -> None:
    killed = BadSample(sample="s", error="x", repeatable=False)
    live = marker(repeatable=False, bad_samples=[killed])
    result = compare("k", live, 0, plan(), shard_built("d2"), lock_digest="l1")
    assert "the handler is not repeatable" in result.problem


def test_another_lock_is_no_comparison() -> None:
    with pytest.raises(HandlerFailure, match="lock"):
        compare("k", marker(lock_digest="l2"), 0, plan(), shard_built("d1"), lock_digest="l1")
