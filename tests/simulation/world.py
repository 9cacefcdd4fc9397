"""Actors that run the real protocol code, one store request at a time, in a random but repeatable
order, with crashes, pauses, expiring claims and uploads, and lost answers; and the rules that must
hold after every request (DESIGN §5)."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Alias, Live
from simulation.store import Bucket, SimulatedStore

MAX_STEPS = 6_000
STEP_TIMEOUT_S = 30.0


class Crash(BaseException):
    """SIGKILL: not an Exception, so no handler in the product catches it."""


class RuleBroken(AssertionError):
    """A rule of the protocol does not hold."""


@dataclass
class Faults:
    """Chances per step of an actor, and how often at most."""

    crash: float = 0.0
    answer_lost: float = 0.0
    expire_claims: float = 0.0
    expire_upload: float = 0.0
    switch: float = 0.3
    most: int = 3


class Actor:
    """A thread that gets one store request at a time."""

    def __init__(self, world: World, name: str, body: Callable[[SimulatedStore], None]) -> None:
        self.world = world
        self.name = name
        self.done = False
        self.dead = False
        self.error: BaseException | None = None
        self.turn = threading.Event()
        self.store = SimulatedStore(world.bucket, self.step, world.answer_lost)
        self._body = body
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def step(self, label: str) -> None:
        """Called before each request: hand the turn back and wait for the next one."""
        self.world.before_request(self, label)

    def _run(self) -> None:
        self.turn.wait()
        try:
            self._body(self.store)
        except Crash:
            self.dead = True
        except BaseException as error:  # noqa: BLE001 - raised again by World.run
            self.error = error
        finally:
            self.done = True
            self.world.turn_over.set()


@dataclass
class World:
    """The bucket, the actors, the faults, and the rules."""

    seed: int
    faults: Faults
    bucket: Bucket = field(default_factory=Bucket)
    trace: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    first_content: dict[str, str] = field(default_factory=dict)
    known_requests: set[str] = field(default_factory=set)
    faults_done: int = 0
    calm: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.turn_over = threading.Event()
        self.actors: list[Actor] = []
        self.steps = 0
        self.crash_at: tuple[str, int] | None = None
        self.requests_of: dict[str, int] = {}

    # -- scheduling

    def add(self, name: str, body: Callable[[SimulatedStore], None]) -> Actor:
        actor = Actor(self, name, body)
        self.actors.append(actor)
        actor.start()
        return actor

    def run(self) -> None:
        """Run all actors to their end; raises what an actor raised, or RuleBroken."""
        current: Actor | None = None
        while alive := [actor for actor in self.actors if not actor.done]:
            if current not in alive or self.random.random() < self.faults.switch:
                current = self.random.choice(alive)
            assert current is not None
            self._give_turn(current)
            self._check()
            self._disturb()
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error

    def _give_turn(self, actor: Actor) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise RuleBroken(f"no end after {MAX_STEPS} requests:\n" + "\n".join(self.trace[-60:]))
        self.bucket.clock += 0.01
        self.turn_over.clear()
        actor.turn.set()
        assert self.turn_over.wait(STEP_TIMEOUT_S), f"{actor.name} neither asked nor ended"

    def before_request(self, actor: Actor, label: str) -> None:
        if actor.dead:
            raise Crash
        actor.turn.clear()
        self.turn_over.set()
        actor.turn.wait()
        count = self.requests_of[actor.name] = self.requests_of.get(actor.name, 0) + 1
        scheduled = self.crash_at == (actor.name, count)
        if scheduled or (actor.name.startswith("builder") and self._fault(self.faults.crash)):
            self.trace.append(f"{actor.name}: CRASHES before {label}")
            actor.dead = True
            raise Crash
        self.trace.append(f"{actor.name}: {label}")

    def answer_lost(self) -> bool:
        lost = self._fault(self.faults.answer_lost)
        if lost:
            self.trace.append("   … and its answer is lost, so it is sent again")
        return lost

    def _fault(self, chance: float) -> bool:
        if self.calm or self.faults_done >= self.faults.most or self.random.random() >= chance:
            return False
        self.faults_done += 1
        return True

    def _disturb(self) -> None:
        if self._fault(self.faults.expire_claims):
            self.trace.append("time passes: claims expire")
            self.bucket.clock += 120.0
        if self.bucket.uploads and self._fault(self.faults.expire_upload):
            upload = self.random.choice(sorted(self.bucket.uploads))
            self.trace.append(f"{upload} expires")
            del self.bucket.uploads[upload]

    # -- rules

    def _check(self) -> None:
        try:
            self._check_zips()
            self._check_ready()
            self._check_requests()
        except RuleBroken as broken:
            raise RuleBroken(
                f"seed {self.seed}: {broken}\n" + "\n".join(self.trace[-80:])
            ) from None

    def _check_zips(self) -> None:
        for name, stored in self.bucket.objects.items():
            if name.endswith(".zip"):
                digest = hashlib.sha256(stored.body).hexdigest()
                if self.first_content.setdefault(name, digest) != digest:
                    raise RuleBroken(f"two contents under {name}")

    def _check_ready(self) -> None:
        for name, stored in list(self.bucket.objects.items()):
            if not name.endswith(".ready"):
                continue
            ready = manifests.decode_ready(stored.body, where=name)
            key = name.removeprefix(layout.DATASETS).removesuffix(".ready")
            if isinstance(ready, Live):
                zipped = self.bucket.objects.get(ready.zip_key)
                if zipped is None or zipped.etag != ready.zip_etag:
                    raise RuleBroken(f"{name} describes a zip that is not there")
                if len(zipped.body) != ready.zip_size:
                    raise RuleBroken(f"{name}: zip_size {ready.zip_size} is {len(zipped.body)}")
            if isinstance(ready, (Live, Alias)):
                self.answered |= {r for r in self._requests() if r.startswith(f"{key}.")}

    def _check_requests(self) -> None:
        present = self._requests()
        for name in self.bucket.objects:
            failure = layout.parse_failure(name)
            if failure:
                self.answered.add(f"{failure.key}.{failure.nonce}")
        unanswered = self.known_requests - present - self.answered
        if unanswered:
            raise RuleBroken(f"deleted unanswered: {sorted(unanswered)}")
        self.known_requests |= present

    def _requests(self) -> set[str]:
        found = (layout.parse_request(name) for name in self.bucket.objects)
        return {f"{request.key}.{request.nonce}" for request in found if request}
