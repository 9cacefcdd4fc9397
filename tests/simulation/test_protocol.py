"""The real protocol code under every kind of fault, in random but repeatable orders of requests.

`protocol_model` explored the rules exhaustively; this runs the code that implements them.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import dscache_builder.attempt.attempt
import dscache_builder.attempt.build
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Checkpoint, Failure, Live
from dscache.spec import Spec
from dscache_builder.failure import EnvironmentFailed, HandlerFailure
from simulation.actors import SHARDS, SPEC, Client, FakeHandler, builder, evictor
from simulation.store import md5
from simulation.world import Faults, World

SEEDS = 60


@pytest.fixture(autouse=True)
def _a_part_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a few bytes, a part each: more requests between which things can go wrong."""
    monkeypatch.setattr(dscache_builder.attempt.build, "part_bytes", lambda estimated: 1)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults are crowded into one build here: nobody is to conclude that the build is the cause."""
    monkeypatch.setattr(dscache_builder.attempt.attempt, "MAX_TAKEOVERS", 10)


def run(world: World, tmp_path: Path, **handler: Any) -> tuple[list[Client], FakeHandler]:
    """Two clients, two builders with the world's faults, and one that ends the story."""
    fake = FakeHandler(tmp_path, **handler)
    clients = [Client().act(world, f"client{i}") for i in (1, 2)]
    for i in (1, 2):
        builder(world, f"builder{i}", fake, rounds=4)
    builder(world, "lastbuilder", fake)
    world.run()
    return clients, fake


def assert_at_rest(world: World) -> None:
    """Nobody waits, and the claim is free or will expire."""
    left = [name for name in world.bucket.objects if name.startswith(layout.REQUESTS)]
    assert left == [], world.trace[-40:]


def assert_zip_of(client: Client) -> None:
    assert isinstance(client.answer, Live)
    with zipfile.ZipFile(BytesIO(client.zip_body)) as archive:
        assert archive.testzip() is None
        names = [name for name in archive.namelist() if "tfrecord" in name]
        assert len(names) == SHARDS
        assert [m.name for m in client.answer.members] == archive.namelist()
        for member in client.answer.members:
            at = client.zip_body[member.offset : member.offset + member.size]
            assert at == archive.read(member.name)
            assert zlib.crc32(at) == member.crc32


def other_etag(etag: str) -> str:
    """As a store makes it whose etag is the MD5 of the whole, or random, or anything else."""
    return md5(etag.encode())


@pytest.mark.parametrize("final_etag", [str, other_etag])
def test_undisturbed_is_one_build(tmp_path: Path, final_etag: Callable[[str], str]) -> None:
    world = World(1, Faults())
    world.bucket.final_etag = final_etag
    clients, fake = run(world, tmp_path)
    assert fake.shards_built == SHARDS
    for client in clients:
        assert_zip_of(client)
    assert_at_rest(world)
    name = layout.claim(SPEC.key)
    value = manifests.decode(world.bucket.objects[name].body, Checkpoint, where=name)
    assert (value.owner, value.upload_id, value.parts, value.seal) == ("", "", [], None)


@pytest.mark.parametrize("request_number", range(1, 45))
def test_killed_between_any_two_requests(tmp_path: Path, request_number: int) -> None:
    """Builder 1 dies before its n-th request, for every n; whoever is next finishes its work."""
    world = World(7, Faults(switch=0.05))
    world.crash_at = ("builder1", request_number)
    fake = FakeHandler(tmp_path)
    client = Client().act(world, "client1")
    builder(world, "builder1", fake, rounds=2)
    builder(world, "lastbuilder", fake)
    world.run()
    assert_zip_of(client)
    assert_at_rest(world)
    assert fake.shards_built <= SHARDS + 1


KINDS = {
    "crashes": Faults(crash=0.03, expire_claims=0.02),
    "lost answers": Faults(answer_lost=0.1),
    "expiring claims": Faults(expire_claims=0.05, most=6),
    "expiring uploads": Faults(expire_upload=0.05, expire_claims=0.02),
    "everything": Faults(0.02, 0.03, 0.03, 0.02, most=8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("evictions", [0, 1])
def test_rules_hold(tmp_path: Path, kind: str, evictions: int) -> None:
    for seed in range(SEEDS):
        world = World(seed, KINDS[kind])
        if evictions:
            evictor(world, SPEC.key, evictions)
        clients, _ = run(world, tmp_path)
        for client in clients:
            assert_zip_of(client)
        assert_at_rest(world)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("final_etag", [str, other_etag])
def test_rules_hold_when_the_handler_is_not_repeatable(
    tmp_path: Path, kind: str, final_etag: Callable[[str], str]
) -> None:
    for seed in range(SEEDS):
        world = World(seed, KINDS[kind])
        world.bucket.final_etag = final_etag
        evictor(world, SPEC.key, 1)
        clients, _ = run(world, tmp_path, variant=lambda w=world: w.random.randrange(3))
        for client in clients:
            assert_zip_of(client)
        assert_at_rest(world)


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_is_answered_when_the_handler_fails_at_times(tmp_path: Path, kind: str) -> None:
    failed = 0
    for seed in range(SEEDS):
        world = World(seed, KINDS[kind])
        clients, _ = run(world, tmp_path, fails=lambda w=world: w.random.random() < 0.3)
        for client in clients:
            if isinstance(client.answer, Failure):
                failed += 1
                assert client.answer.message == "the handler failed"
            else:
                assert_zip_of(client)
        assert_at_rest(world)
    assert failed > 0


def test_a_default_written_out_is_the_same_build(tmp_path: Path) -> None:
    """SPEC resolves to another spec: one build, under the resolved key, and an alias."""
    resolved = Spec.of("photos", "1.0.0", {"size": 1, "default": 2})
    for seed in range(SEEDS):
        world = World(seed, KINDS["everything"])
        fake = FakeHandler(tmp_path, resolved=resolved)
        asked = Client().act(world, "client1")
        written_out = Client(resolved).act(world, "client2")
        for i in (1, 2):
            builder(world, f"builder{i}", fake, rounds=4)
        builder(world, "lastbuilder", fake)
        world.run()
        assert_zip_of(asked)
        assert asked.zip_body == written_out.zip_body
        assert layout.archive(SPEC.key, 0) not in world.bucket.objects
        assert_at_rest(world)


def test_cancel_spares_what_others_wait_for(tmp_path: Path) -> None:
    outcomes = set()
    for seed in range(SEEDS):
        world = World(seed, Faults(most=0))
        fake = FakeHandler(tmp_path)
        cancels = Client().act(world, "client1", cancels=True)
        waits = Client().act(world, "client2")
        builder(world, "builder1", fake)
        world.run()
        assert_zip_of(waits)
        assert_at_rest(world)
        outcomes.add(type(cancels.answer))
    assert Live in outcomes


def test_transient_failures_are_tried_again_and_others_are_answers(tmp_path: Path) -> None:
    refused = EnvironmentFailed(
        "no", "error sending request: tcp connect error: Connection refused"
    )
    for broken, opened, answer in (
        ([HandlerFailure("disk", "full"), refused], 3, Live),
        ([EnvironmentFailed("photos==9: no such version")], 1, Failure),
        ([HandlerFailure("disk", "full") for _ in range(9)], 4, Failure),
    ):
        world = World(1, Faults())
        fake = FakeHandler(tmp_path, broken=list(broken))
        client = Client().act(world, "client1")
        builder(world, "builder1", fake)
        world.run()
        assert isinstance(client.answer, answer)
        assert fake.opened == opened
        assert_at_rest(world)
