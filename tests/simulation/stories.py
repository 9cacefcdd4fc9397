"""Stories: who acts in a world, under which faults, and what must be true at the end.

`anything` draws all of that from the seed. `make test` tells some hundred stories of it, `make
stress` as many as one likes; a seed tells the same story each time.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

import dscache_builder.attempt.attempt
import dscache_builder.attempt.build
from dscache.protocol import layout
from dscache.protocol.manifests import Failure, Live
from dscache.spec import Spec
from simulation.actors import (
    SHARDS,
    SPEC,
    Client,
    FakeHandler,
    builder,
    evictor,
    send_now,
    vandal,
)
from simulation.store import md5
from simulation.world import Faults, RuleBroken, World

RESOLVED = Spec.of("photos", "1.0.0", {"size": 1, "default": 2})
KINDS = {
    "calm": Faults(),
    "crashes": Faults(crash=0.03, expire_claims=0.02),
    "lost answers": Faults(answer_lost=0.1),
    "expiring claims": Faults(expire_claims=0.05, most=6),
    "expiring uploads": Faults(expire_upload=0.05, expire_claims=0.02),
    "lost claims": Faults(lose_claim=0.02, expire_claims=0.02, most=5),
    "outages": Faults(outage=0.03, late=0.03, expire_claims=0.02, most=6),
    "everything": Faults(0.02, 0.03, 0.03, 0.02, lose_claim=0.003, outage=0.02, late=0.02, most=10),
}


def other_etag(etag: str) -> str:
    """As a store makes it whose etag is the MD5 of the whole, or random, or anything else."""
    return md5(etag.encode())


def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crowd things together: a part for each shard, parts that are sent when they are waited for,
    and so many faults in one build that nobody should take the build for their cause."""
    monkeypatch.setattr(dscache_builder.attempt.build, "part_bytes", lambda estimated: 1)
    monkeypatch.setattr(dscache_builder.attempt.build, "wait", send_now)
    monkeypatch.setattr(dscache_builder.attempt.attempt, "MAX_TAKEOVERS", 20)


@dataclass
class Told:
    """A story that was told: its world and those who asked."""

    world: World
    clients: list[Client]
    cancels: list[bool]


Story = Callable[[int, Path], Told]


def anything(seed: int, folder: Path) -> Told:
    """Three clients, three builders, an evictor and a vandal; everything is left to chance."""
    world = World(seed, Faults())
    chance = world.random
    world.faults = KINDS[chance.choice(list(KINDS))]
    world.faults.switch = chance.choice([0.1, 0.3, 0.6])
    world.bucket.page = chance.choice([1, 2, 1000])
    etags: list[Callable[[str], str]] = [str, str, other_etag]
    world.bucket.final_etag = chance.choice(etags)
    world.in_any_order = chance.random() < 0.5
    repeatable, fails = chance.random() < 0.5, chance.random() < 0.3
    handler = FakeHandler(
        folder,
        variant=lambda: 0 if repeatable else chance.randrange(3),
        fails=lambda: fails and chance.random() < 0.3,
        resolved=chance.choice([SPEC, SPEC, RESOLVED]),
    )
    cancels = [chance.random() < 0.2 for _ in range(3)]
    specs = [SPEC, SPEC, chance.choice([SPEC, RESOLVED])]
    clients = [
        Client(spec).act(world, f"client{i}", cancels=cancel)
        for i, (spec, cancel) in enumerate(zip(specs, cancels, strict=True))
    ]
    if chance.random() < 0.6:
        evictor(world, handler.resolved.key, chance.choice([1, 2]))
    if chance.random() < 0.2:
        vandal(world, SPEC.key, 2)
    for i in (1, 2):
        builder(world, f"builder{i}", handler, rounds=4)
    builder(world, "lastbuilder", handler)
    return _told(world, clients, cancels)


def slow(seed: int, folder: Path) -> Told:
    """One builder whose handler needs longer for a shard than a claim lives."""
    world = World(seed, Faults())
    world.fair = True

    def passes() -> None:
        world.bucket.clock += 1.0

    handler = FakeHandler(folder, takes_s=100, passes=passes)
    clients = [Client().act(world, "client0")]
    builder(world, "builder1", handler)
    return _told(world, clients, [False])


def _told(world: World, clients: list[Client], cancels: list[bool]) -> Told:
    world.run()
    told = Told(world, clients, cancels)
    try:
        check(told)
    except RuleBroken as broken:
        raise RuleBroken(f"seed {world.seed}: {broken}\n" + "\n".join(world.trace[-80:])) from None
    return told


def check(told: Told) -> None:
    """Everybody has the answer that is due, and nothing is left to do. Raises RuleBroken."""
    left = [name for name in told.world.bucket.objects if name.startswith(layout.REQUESTS)]
    if any(layout.parse_request(name) for name in left):
        raise RuleBroken(f"requests are left: {left}")
    for client, cancel in zip(told.clients, told.cancels, strict=True):
        if isinstance(client.answer, Failure):
            if client.answer.kind == "cancelled" and not cancel:
                raise RuleBroken("somebody was told of a cancel that is not theirs")
            if client.answer.kind not in ("cancelled", "handler"):
                raise RuleBroken(f"an answer that nothing explains: {client.answer}")
        else:
            check_zip(client)


def check_zip(client: Client) -> None:
    """What the client read is a whole zip, and is what the marker says. Raises RuleBroken."""
    if not isinstance(client.answer, Live):
        raise RuleBroken("no answer")
    with zipfile.ZipFile(BytesIO(client.zip_body)) as archive:
        names = archive.namelist()
        if archive.testzip() or len([name for name in names if "tfrecord" in name]) != SHARDS:
            raise RuleBroken("the zip is damaged")
        if [member.name for member in client.answer.members] != names:
            raise RuleBroken("the zip has other members than its marker says")
        for member in client.answer.members:
            at = client.zip_body[member.offset : member.offset + member.size]
            if at != archive.read(member.name) or zlib.crc32(at) != member.crc32:
                raise RuleBroken(f"{member.name} is not what the marker says")
