"""The simulation finds what it is there to find: leave out a rule, and a rule breaks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dscache_builder.attempt.build
from dscache.protocol.manifests import Alias, Live
from dscache.store.objects import Objects
from dscache_builder.attempt import publish, requests
from dscache_builder.attempt.attempt import Attempt
from dscache_builder.attempt.context import Outcome
from simulation.actors import SPEC, Client, FakeHandler, builder, evictor
from simulation.world import Faults, RuleBroken, World

SEEDS = 400


def stories(tmp_path: Path, faults: Faults) -> None:
    for seed in range(SEEDS):
        world = World(seed, faults)
        evictor(world, SPEC.key, 1)
        fake = FakeHandler(tmp_path, variant=partial(world.random.randrange, 2))
        for i in (1, 2):
            Client().act(world, f"client{i}")
            builder(world, f"builder{i}", fake, rounds=4)
        builder(world, "lastbuilder", fake)
        world.run()


@pytest.fixture(autouse=True)
def _a_part_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dscache_builder.attempt.build, "part_bytes", lambda estimated: 1)


def test_listing_after_looking_deletes_unanswered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_then_list(self: Attempt) -> Outcome | None:
        ready = publish.read_ready(self.store, self.key)
        asked = requests.list_requests(self.store, self.key)
        return self._answer(asked, ready) if isinstance(ready.value, (Live, Alias)) else None

    monkeypatch.setattr(Attempt, "_answer_if_live", look_then_list)
    with pytest.raises(RuleBroken, match="deleted unanswered"):
        stories(tmp_path, Faults(switch=0.6))


def test_deleting_before_the_failure_leaves_a_client_unanswered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = requests.put_failures

    def deletes_first(store: Objects, key: str, nonces: list[str], *rest: Any, **more: Any) -> None:
        requests.delete(store, key, nonces)
        honest(store, key, nonces, *rest, **more)

    monkeypatch.setattr(requests, "put_failures", deletes_first)
    world = World(1, Faults())
    Client().act(world, "client1")
    builder(world, "builder1", FakeHandler(tmp_path, fails=lambda: True))
    with pytest.raises(RuleBroken, match="deleted unanswered"):
        world.run()
