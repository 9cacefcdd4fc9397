"""Handler hosts of the tests: what they build, and how they fail."""

from __future__ import annotations

import pytest

from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import PlanSummary, ShardBuilt
from dscache_sdk.example import decode_example
from dscache_sdk.records import read_records


def built(host: HostClient, plan: PlanSummary | None = None) -> list[ShardBuilt]:
    """Build all shards and return them in plan order."""
    plan = plan or host.plan()
    events = host.build(range(len(plan.shards)), lambda: True)
    found = [event for event in events if isinstance(event, ShardBuilt)]
    return sorted(found, key=lambda shard: shard.index)


def failure_of(host: HostClient) -> HandlerFailure:
    """The failure that building everything ends with."""
    with host, pytest.raises(HandlerFailure) as raised:
        built(host)
    return raised.value


def good(count: int) -> dict[str, str]:
    """So many samples with nothing wrong."""
    return {f"s{number:02}.txt": "good" for number in range(count)}


def ids(shards: list[ShardBuilt]) -> list[str]:
    """Ids of all records, sorted."""
    records = [record for shard in shards for record in read_records(shard.path)]
    return sorted(decode_example(record)["id"][0].decode() for record in records)
