"""What a download decides without touching anything."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.download.concurrency import (
    FAST_RANGE_BYTES_PER_S,
    MAX_RANGES,
    Measurement,
    backoff_s,
    is_conclusive,
    is_distant,
    piece_count,
    ranges_wanted,
    worth_sharing,
)
from dscache.download.download import plan_download
from dscache.download.ranges import Interrupted, Source, refusal
from dscache.download.segments import MAX_GAP_BYTES, MAX_RUN_BYTES, MIN_RUN_BYTES, plan_runs
from dscache.errors import (
    AccessDenied,
    BucketMissing,
    DatasetReplaced,
    IntegrityError,
    StoreError,
    UsageError,
)
from dscache.folder import contents
from dscache.folder.contents import SplitContents, check_members, contents_of, held_names
from dscache.folder.selection import Selection, select
from dscache.protocol.manifests import Live, Member
from dscache.spec import Spec
from dscache.units import format_age, format_bytes, format_count, parse_bytes

DIGEST = "0" * 64
MIB = 1 << 20


def member(name: str, offset: int = 100, size: int = 10, split: str = "") -> Member:
    return Member(name=name, offset=offset, size=size, crc32=0, digest=DIGEST, split=split)


def live(members: list[Member], etag: str = "e") -> Live:
    return Live(
        spec=Spec.of("photos", "1.0.0", {}),
        generation=0,
        zip_key="datasets/k.zip",
        zip_etag=etag,
        zip_size=10_000,
        seal="",
        members=members,
    )


LIVE = live(
    [
        member("t0", 100, split="train"),
        member("t1", 200, split="train"),
        member("t2", 300, split="train"),
        member("v0", 400, split="val"),
        member("features.json", 500),
    ]
)


class TestSelect:
    @pytest.mark.parametrize(
        ("splits", "shards", "names"),
        [
            (None, None, ["t0", "t1", "t2", "v0", "features.json"]),
            (["val"], None, ["v0", "features.json"]),
            (None, [0], ["t0", "v0", "features.json"]),
            (["train"], [0, 2], ["t0", "t2", "features.json"]),
            (None, [2], ["t2", "features.json"]),
            ([], None, ["features.json"]),
        ],
    )
    def test_members(
        self, splits: list[str] | None, shards: list[int] | None, names: list[str]
    ) -> None:
        assert [m.name for m in select(LIVE, Selection.of(splits, shards))] == names

    @pytest.mark.parametrize(
        ("splits", "shards", "message"),
        [
            (["test"], None, "no split 'test' in photos; available: train, val"),
            (None, [3], "no shard 3; the selected splits have shards 0 to 2"),
            (["val"], [1], "no shard 1; the selected splits have shards 0 to 0"),
            (None, [-1], "no shard -1"),
            (None, [], "`shards` is empty"),
        ],
    )
    def test_refused(
        self, splits: list[str] | None, shards: list[int] | None, message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            select(LIVE, Selection.of(splits, shards))


class TestCheckMembers:
    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            (member("../.ssh/authorized_keys"), "not a plain file name"),
            (member(".hidden"), "not a plain file name"),
            (member("a/b"), "not a plain file name"),
            (member(""), "not a plain file name"),
            (member("a\0b"), "not a plain file name"),
            (member("x" * 201), "longer than 200 bytes"),
            (member("manifest.json"), "is reserved for the local cache"),
            (member("partial.json"), "is reserved for the local cache"),
            (member("x.part"), "is reserved for the local cache"),
            (member("t0"), "occurs twice"),
            (member("x", 9_999, 2), "outside the zip"),
            (member("x", -1, 2), "outside the zip"),
            (member("x", 0, -2), "outside the zip"),
            (Member(name="x", offset=0, size=0, crc32=1 << 32, digest=DIGEST), "no valid crc32"),
            (Member(name="x", offset=0, size=0, crc32=0, digest="short"), "no valid crc32"),
        ],
    )
    def test_refused(self, bad: Member, problem: str) -> None:
        with pytest.raises(IntegrityError, match=problem):
            check_members(live([member("t0"), bad]))

    def test_a_good_table_passes(self) -> None:
        check_members(LIVE)


def laid_out(sizes_and_gaps: list[tuple[int, int]]) -> list[Member]:
    members, at = [], 0
    for number, (size, gap) in enumerate(sizes_and_gaps):
        at += gap
        members.append(member(f"m{number}", at, size))
        at += size
    return members


class TestRuns:
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0, 1, 1000, MIB, 5 * MIB, 100 * MIB]),
                st.sampled_from([30, 100, MAX_GAP_BYTES, MAX_GAP_BYTES + 1, MIB]),
            ),
            max_size=60,
        ),
        st.sets(st.integers(0, 59)),
    )
    def test_every_member_is_in_one_run_in_order(
        self, layout: list[tuple[int, int]], alone: set[int]
    ) -> None:
        members = laid_out(layout)
        names = {f"m{number}" for number in alone}
        runs = plan_runs(members, names)
        assert [m for run in runs for m in run] == members
        for run in runs:
            size = run[-1].offset + run[-1].size - run[0].offset
            assert len(run) == 1 or size <= MAX_RUN_BYTES
            assert len(run) == 1 or not names & {m.name for m in run}
            gaps = [b.offset - a.offset - a.size for a, b in itertools.pairwise(run)]
            assert all(gap <= MAX_GAP_BYTES for gap in gaps)

    def test_small_members_share_a_run(self) -> None:
        assert len(plan_runs(laid_out([(1000, 80)] * 500))) == 1

    def test_large_members_have_their_own(self) -> None:
        assert len(plan_runs(laid_out([(128 * MIB, 80)] * 5))) == 5

    def test_a_middling_dataset_is_spread_over_runs(self) -> None:
        runs = plan_runs(laid_out([(MIB, 80)] * 64))
        assert len(runs) == pytest.approx(64 * MIB / MIN_RUN_BYTES, rel=0.4)


class TestBackoff:
    def test_the_sequence(self) -> None:
        assert [backoff_s(n, 1.0) for n in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 10, 10]

    @given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
    def test_between_half_and_all(self, failure: int, jitter: float) -> None:
        full = backoff_s(failure, 1.0)
        assert full / 2 <= backoff_s(failure, jitter) <= full <= 10


class TestRangesWanted:
    @pytest.mark.parametrize(
        ("looks", "expected"),
        [
            ([(2, 10e6)], 4),
            ([(2, 10e6), (4, 18e6)], 8),
            ([(2, 10e6), (4, 11e6)], 4),
            ([(2, 10e6), (4, 18e6), (8, 34e6)], MAX_RANGES),
            ([(2, 2.0 * FAST_RANGE_BYTES_PER_S)], 2),
            ([(2, 10e6), (4, 4.0 * FAST_RANGE_BYTES_PER_S)], 4),
            ([(2, 0.0)], 4),
        ],
    )
    def test_table(self, looks: list[tuple[int, float]], expected: int) -> None:
        assert ranges_wanted([Measurement(*look) for look in looks]) == expected

    def test_a_look_takes_longer_while_little_arrives(self) -> None:
        assert not is_conclusive(0.2, 1 << 30, 2)
        assert is_conclusive(0.25, 4 * MIB, 2)
        assert not is_conclusive(0.25, 4 * MIB, 4)
        assert is_conclusive(1.5, 0, 4)


class TestFar:
    def test_table(self) -> None:
        assert [is_distant(seconds) for seconds in (0.0, 0.003, 0.02, 0.3)] == [
            False,
            False,
            True,
            True,
        ]


class TestPieces:
    @pytest.mark.parametrize(
        ("size", "share", "expected"),
        [
            (64 * MIB, 16 * MIB, 4),
            (64 * MIB, 128 * MIB, 1),
            (64 * MIB, 60 * MIB, 2),
            (16 * MIB, 16 * MIB, 1),
            (3 * MIB, MIB // 2, 3),  # a megabyte is the least
            (10, 2, 1),
            (0, 0, 1),
        ],
    )
    def test_table(self, size: int, share: int, expected: int) -> None:
        assert piece_count(size, share) == expected


class TestWorthSharing:
    @pytest.mark.parametrize(
        ("left", "rate", "expected"),
        [
            (64 * MIB, 25e6, True),  # 2.7 s to go
            (64 * MIB, 800e6, False),  # 0.08 s
            (MIB - 1, 0.1e6, False),  # too small to be cut
            (1 << 40, 800e6, True),
        ],
    )
    def test_table(self, left: int, rate: float, expected: bool) -> None:
        assert worth_sharing(left, rate) is expected


def xml(code: str, message: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


class TestRefusal:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "words"),
        [
            (503, b"", Interrupted, "503"),
            (500, xml("InternalError"), Interrupted, "InternalError"),
            (429, b"slow down", Interrupted, "429"),
            (408, b"", Interrupted, "408"),
            (403, xml("AccessDenied", "Request has expired"), AccessDenied, "has expired"),
            (403, xml("RequestTimeTooSkewed"), AccessDenied, "clock"),
            (401, b"", AccessDenied, "credentials"),
            (404, xml("NoSuchBucket"), BucketMissing, "bucket"),
            (404, xml("NoSuchKey"), DatasetReplaced, "retired"),
            (412, xml("PreconditionFailed"), DatasetReplaced, "retired"),
            (416, xml("InvalidRange"), IntegrityError, "smaller"),
            (200, b"all of it", StoreError, "206"),
            (307, b"", StoreError, "206"),
            (200, b"\xff\xfe", StoreError, "206"),
        ],
    )
    def test_table(self, status: int, body: bytes, kind: type[Exception], words: str) -> None:
        source = Source(lambda: "", name="datasets/k.zip", etag="e", size=1)
        error = refusal(status, body, source)
        assert type(error) is kind
        assert words in str(error) and "datasets/k.zip" in str(error)


class TestSource:
    def test_one_thread_renews_for_all(self) -> None:
        urls = iter(["u1", "u2", "u3"])
        source = Source(lambda: next(urls), name="z", etag="e", size=1)
        assert source.url() == "u1"
        assert source.url() == "u1"
        assert source.url(stale="u1") == "u2"
        assert source.url(stale="u1") == "u2"  # a second thread was refused with the old one too
        assert source.url(stale="u2") == "u3"


class TestDecide:
    def test_nothing_there(self) -> None:
        plan = plan_download(LIVE, select(LIVE, Selection.of(["val"])), None)
        assert ([m.name for m in plan.fetch], plan.extend) == (["v0", "features.json"], False)
        assert plan.held == {"v0", "features.json"}

    def test_a_part_is_there(self) -> None:
        plan = plan_download(LIVE, select(LIVE), (LIVE, {"v0", "features.json"}))
        assert ([m.name for m in plan.fetch], plan.extend) == (["t0", "t1", "t2"], True)
        assert plan.held == {m.name for m in LIVE.members}

    def test_another_zip_is_there(self) -> None:
        other = live(LIVE.members, etag="other")
        plan = plan_download(LIVE, select(LIVE), (other, {"v0"}))
        assert (len(plan.fetch), plan.extend) == (5, False)


class TestHolding:
    def test_round_trip(self) -> None:
        held = contents_of(LIVE, {"t0", "t2", "features.json"})
        assert held == {
            "train": SplitContents(3, frozenset({0, 2})),
            "val": SplitContents(1, frozenset()),
        }
        assert held_names(LIVE, held) == {"t0", "t2", "features.json"}
        assert not contents.is_complete(held)
        assert contents.is_complete(contents_of(LIVE, {m.name for m in LIVE.members}))
        assert held_names(LIVE, None) == {m.name for m in LIVE.members}

    @pytest.mark.parametrize(
        ("splits", "shards", "expected"),
        [
            (None, None, False),
            (["train"], None, False),
            (["train"], [0], True),
            (["train"], [0, 2], True),
            (["train"], [1], False),
            (["val"], None, True),
            (["val"], [0, 7], True),
            (None, [0], True),
            (["test"], None, False),
        ],
    )
    def test_holds(
        self, splits: list[str] | None, shards: list[int] | None, expected: bool
    ) -> None:
        held = {
            "train": SplitContents(3, frozenset({0, 2})),
            "val": SplitContents(1, frozenset({0})),
        }
        assert Selection.of(splits, shards).is_covered_by(held) is expected
        assert Selection.of(splits, shards).is_covered_by(None)


class TestUnits:
    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 30, "3.0 GiB"),
            (1 << 60, "1024.0 PiB"),
        ],
    )
    def test_format(self, size: int, text: str) -> None:
        assert format_bytes(size) == text

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (-5, "just now"),
            (59.9, "just now"),
            (60, "1 min ago"),
            (7300, "2 h ago"),
            (30 * 86400, "30 d ago"),
        ],
    )
    def test_age(self, seconds: float, text: str) -> None:
        assert format_age(seconds) == text

    def test_count(self) -> None:
        counts = [format_count(count, "problem") for count in (0, 1, 2)]
        assert counts == ["0 problems", "1 problem", "2 problems"]

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("10", 10),
            ("1.5K", 1536),
            ("200GB", 200 << 30),
            ("2 tib", 2 << 40),
            ("0", 0),
            ("7b", 7),
        ],
    )
    def test_parse(self, text: str, size: int) -> None:
        assert parse_bytes(text) == size

    @pytest.mark.parametrize("text", ["", "GB", "-1", "1.5.2G", "ten", "1e9"])
    def test_no_size(self, text: str) -> None:
        with pytest.raises(UsageError, match="is not a size"):
            parse_bytes(text)
