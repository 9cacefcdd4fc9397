"""Subsets of a plan: without some samples, or only the first ones. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from msgspec.structs import replace

from dscache_sdk.plan import Plan, ShardPlan


def without(plan: Plan, index: int, samples: Collection[str]) -> Plan:
    """The plan with these samples (by id) removed from shard `index`.

    The bytes of the other samples stay the same.
    """
    if not samples:
        return plan
    shard = plan.shards[index]
    kept = [number for number in shard.samples if plan.samples[number].id not in samples]
    shards = list(plan.shards)
    shards[index] = replace(shard, samples=kept)
    return replace(plan, shards=shards)


def only_samples(plan: Plan, count: int, leave_out: Collection[str] = ()) -> Plan:
    """A plan of one shard with the first `count` samples, without those in `leave_out`."""
    numbers = [
        number for number, sample in enumerate(plan.samples[:count]) if sample.id not in leave_out
    ]
    return _only(plan, numbers)


def mixed_samples(plan: Plan, count: int, leave_out: Collection[str] = ()) -> Plan:
    """A plan of one shard with `count` samples in the order in which training reads them.

    That order is a permutation, so they are not all from one folder.
    """
    order = (number for shard in plan.shards for number in shard.samples)
    kept = (number for number in order if plan.samples[number].id not in leave_out)
    return _only(plan, list(itertools.islice(kept, count)))


def _only(plan: Plan, numbers: list[int]) -> Plan:
    shard = ShardPlan(0, "preview.tfrecord", "train", numbers, len(numbers))
    return replace(plan, shards=[shard])
