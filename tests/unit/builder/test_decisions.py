"""The builder's pure decisions: parts, claims, steps, order of work."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.protocol import layout
from dscache.protocol.manifests import Checkpoint, PartRecord, Seal, ShardRecord
from dscache.spec import Spec
from dscache.store.objects import Head, ListedObject, Part, multipart_etag
from dscache.store.upload import body_size
from dscache_builder import reconcile
from dscache_builder.attempt.claim import may_take
from dscache_builder.attempt.parts import (
    MIN_PART_BYTES,
    FinishedShard,
    Packer,
    keep_prefix,
    member_table,
    part_bytes,
    stored_bytes,
)
from dscache_builder.attempt.publish import Step, next_step
from dscache_builder.reconcile import WaitingKey

A, B, C = (Spec.of(name, "1", {}).key for name in "abc")


def shard(index: int, size: int) -> FinishedShard:
    record = ShardRecord(name=f"s{index}", size=size, crc32=0, digest="", records=1, split="train")
    return FinishedShard(record, Path(f"s{index}"))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.randoms(), st.integers(1, 300))
def test_parts_hold_whole_shards_in_plan_order(
    sizes: list[int], rng: random.Random, limit: int
) -> None:
    """Whatever order shards are finished in, the parts are the same, and none is too small."""
    order = list(range(len(sizes)))
    rng.shuffle(order)
    packer = Packer(next_part=1, next_shard=0)
    parts = [part for i in order for part in packer.add(i, shard(i, sizes[i]), limit)]
    parts.append(packer.last(b"tail"))
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    names = [record.name for part in parts for record in part.records]
    assert names == [f"s{i}" for i in range(len(sizes))]
    assert all(body_size(part.segments) >= limit for part in parts[:-1])
    total = sum(stored_bytes(shard(i, size).record) for i, size in enumerate(sizes))
    assert sum(body_size(part.segments) for part in parts) == total + len(b"tail")
    offsets = [m.offset for m in member_table([shard(i, s).record for i, s in enumerate(sizes)])]
    assert offsets == sorted(offsets)


def test_resuming_goes_on_where_the_kept_parts_end() -> None:
    packer = Packer(next_part=4, next_shard=7)
    assert packer.add(8, shard(8, 10), 5) == []
    (first, second) = packer.add(7, shard(7, 10), 5)
    assert (first.number, first.records[0].name) == (4, "s7")
    assert (second.number, second.records[0].name) == (5, "s8")


@pytest.mark.parametrize(
    ("total", "expected"),
    [(0, MIN_PART_BYTES), (9_000 * MIN_PART_BYTES, MIN_PART_BYTES), (10**12, 10**12 // 9_000)],
)
def test_ten_thousand_parts_suffice(total: int, expected: int) -> None:
    assert part_bytes(total) == expected
    assert total / part_bytes(total) <= 9_001


def test_only_a_confirmed_prefix_is_kept() -> None:
    recorded = [PartRecord(number=n, size=n, etag=f"e{n}", shards=[]) for n in (1, 2, 3)]
    stored = [Part(1, "e1", 1), Part(2, "e2", 2), Part(3, "e3", 3)]
    assert keep_prefix(recorded, stored) == recorded
    assert keep_prefix(recorded, stored[:1] + stored[2:]) == recorded[:1]
    assert keep_prefix(recorded, [Part(1, "other", 1), *stored[1:]]) == []
    assert keep_prefix(recorded, [Part(1, "e1", 9), *stored[1:]]) == []
    assert keep_prefix([], stored) == []


def checkpoint(**changes: Any) -> Checkpoint:
    values = {"owner": "b:1", "nonce": "n", "counter": 1, "expires_at": 100.0, **changes}
    return Checkpoint(**values)


@pytest.mark.parametrize(
    ("claim", "owner", "now", "free"),
    [
        (checkpoint(owner=""), "x:1", 50.0, True),
        (checkpoint(), "x:1", 50.0, False),
        (checkpoint(), "x:1", 100.0, True),
        (checkpoint(), "b:1", 50.0, True),
        (checkpoint(), "b:2", 50.0, True),
        (checkpoint(owner="bb:1"), "b:1", 50.0, False),
    ],
)
def test_who_may_take_a_claim(claim: Checkpoint, owner: str, now: float, free: bool) -> None:
    assert may_take(claim, owner, now) is free


ETAG = multipart_etag(["0" * 32])
SEALED = checkpoint(seal=Seal(zip_etag=ETAG, zip_size=1, members=[]), upload_nonce="u1")
UNKNOWN = checkpoint(seal=Seal(zip_etag="", zip_size=1, members=[]), upload_nonce="u1")


@pytest.mark.parametrize(
    ("head", "value", "step"),
    [
        (None, checkpoint(), Step.BUILD),
        (Head("x", 1), checkpoint(), Step.RETIRE),
        (None, SEALED, Step.COMPLETE),
        (Head(ETAG, 1), SEALED, Step.PUBLISH),
        (Head("x", 1), SEALED, Step.RETIRE),
        (Head("random", 1, {"dscache-upload": "u1"}), UNKNOWN, Step.PUBLISH),
        (Head("random", 1, {"dscache-upload": "u2"}), UNKNOWN, Step.RETIRE),
    ],
)
def test_what_a_zip_calls_for(head: Head | None, value: Checkpoint, step: Step) -> None:
    assert next_step(head, value) is step


def entry(key: str, nonce: str, at: float) -> ListedObject:
    return ListedObject(layout.request(key, nonce), "e", 1, at)


def test_highest_priority_then_oldest() -> None:
    entries = [entry(A, "1", 30), entry(B, "1", 20), entry(B, "2", 40), entry(C, "1", 10)]
    priorities = {(A, "1"): 5, (B, "1"): 1, (B, "2"): 9, (C, "1"): 5}
    order = reconcile.by_need(entries, lambda key, nonce: priorities[key, nonce])
    assert [waiting.key for waiting in order] == [B, C, A]
    assert order[0] == WaitingKey(B, 9, 20)


def test_equal_requests_are_not_read() -> None:
    def fail(key: str, nonce: str) -> int:
        raise AssertionError("read")

    entries = [entry(A, str(n), n) for n in range(1000)]
    assert [w.key for w in reconcile.by_need(entries, fail)] == [A]


def test_cancels_without_their_request_are_strays() -> None:
    cancel = ListedObject(layout.cancel(A, "1"), "e", 1, 0.0)
    stray = ListedObject(layout.cancel(A, "2"), "e", 1, 0.0)
    assert reconcile.stray_cancels([entry(A, "1", 0), cancel, stray]) == [stray.name]


def test_what_may_start() -> None:
    waiting = [WaitingKey(key, 5, 0.0) for key in (A, B, C)]
    assert reconcile.startable(waiting, set(), {}, 10.0, 2) == [A, B]
    assert reconcile.startable(waiting, {A}, {B: 11.0}, 10.0, 2) == [C]
    assert reconcile.startable(waiting, set(), {}, 10.0, 0) == []
