"""Actors that run the real protocol code, one store request at a time, in a random but repeatable
order, with crashes, pauses, expiring claims and uploads, lost claims, lost answers, outages and
late writes; and the rules that must hold after every request (docs/protocol.md#how-it-is-tested).
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from dscache.errors import StoreError
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Alias, Checkpoint, Live, Ready, Retired
from simulation.store import Bucket, Fate, SimulatedStore, Stored

MAX_STEPS = 6_000
EXPIRE_S = 120.0  # longer than a claim lives
ARRIVES = 0.1  # chance per step that a late write arrives
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
    lose_claim: float = 0.0
    outage: float = 0.0
    late: float = 0.0
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
        self.store = SimulatedStore(world.bucket, self.step, world.fate, world.read_fate)
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
    answered: set[tuple[str, float]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    first_content: dict[str, str] = field(default_factory=dict)
    known_requests: dict[tuple[str, float], int] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    faults_done: Counter[str] = field(default_factory=Counter)
    fair: bool = False  # nobody is paused for long: whoever works can renew its claim in time
    in_any_order: bool = False  # parts of one build are sent side by side
    calm: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.turn_over = threading.Event()
        self.actors: list[Actor] = []
        self.steps = 0
        self.crash_at: tuple[str, int] | None = None
        self.requests_of: dict[str, int] = {}
        self._claims: dict[str, tuple[Stored, Checkpoint]] = {}
        self._ready: dict[str, tuple[Stored, Ready]] = {}
        self._jumped_at = self.bucket.clock

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
            if current.error is not None:
                raise self._broken(f"{current.name} ended by an error") from current.error
            self._check(current.name)
            self._disturb()

    def _give_turn(self, actor: Actor) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise self._broken(f"no end after {MAX_STEPS} requests")
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
        crashes = actor.name.startswith("builder") and self._fault("crash", self.faults.crash)
        if scheduled or crashes:
            self.trace.append(f"{actor.name}: CRASHES before {label}")
            actor.dead = True
            raise Crash
        self.trace.append(f"{actor.name}: {label}")

    def fate(self) -> Fate:
        """What becomes of a write."""
        if self._fault("answer lost", self.faults.answer_lost):
            return self._traced(Fate.REPEATED)
        if self._fault("late write", self.faults.late):
            return self._traced(Fate.LATE)
        return self.read_fate()

    def read_fate(self) -> Fate:
        """What becomes of a read."""
        if self._fault("outage", self.faults.outage):
            return self._traced(Fate.UNREACHABLE)
        return Fate.ANSWERED

    def _traced(self, fate: Fate) -> Fate:
        self.trace.append(f"   … and {fate.value}")
        return fate

    def _fault(self, kind: str, chance: float) -> bool:
        if not chance or self.calm or self.faults_done.total() >= self.faults.most:
            return False
        if self.random.random() >= chance:
            return False
        self.faults_done[kind] += 1
        return True

    def _disturb(self) -> None:
        if self._fault("claims expire", self.faults.expire_claims):
            self.trace.append("time passes: claims expire")
            self.bucket.clock += EXPIRE_S
            self._jumped_at = self.bucket.clock
        if self.bucket.uploads and self._fault("upload expires", self.faults.expire_upload):
            upload = self.random.choice(sorted(self.bucket.uploads))
            self.trace.append(f"{upload} expires")
            del self.bucket.uploads[upload]
        claims = [name for name in self.bucket.objects if name.startswith(layout.BUILDS)]
        if claims and self._fault("claim lost", self.faults.lose_claim):
            lost = self.random.choice(sorted(claims))
            self.trace.append(f"{lost} is lost")
            del self.bucket.objects[lost]
            self._claims.pop(lost, None)
        if self.bucket.late and self.random.random() < ARRIVES:
            self._arrive(self.bucket.late.pop(self.random.randrange(len(self.bucket.late))))

    def _arrive(self, write: Callable[[], object]) -> None:
        self.trace.append("a late write arrives")
        with contextlib.suppress(StoreError):
            write()
        self._check("the network")

    # -- rules

    def _check(self, actor: str) -> None:
        try:
            self._check_zips()
            self._check_claims(actor)
            self._check_ready(actor)
            self._check_failures()
            self._check_requests()
        except RuleBroken as broken:
            raise self._broken(str(broken)) from None

    def _broken(self, what: str) -> RuleBroken:
        return RuleBroken(f"seed {self.seed}: {what}\n" + "\n".join(self.trace[-80:]))

    def _check_zips(self) -> None:
        for name, stored in self.bucket.objects.items():
            if name.endswith(".zip"):
                digest = hashlib.sha256(stored.body).hexdigest()
                if self.first_content.setdefault(name, digest) != digest:
                    raise RuleBroken(f"two contents under {name}")

    def _check_claims(self, actor: str) -> None:
        """A claim is taken from nobody who holds it, and names no upload that was aborted."""
        for name, stored in self._below(layout.BUILDS):
            before, claim = self._claims.get(name, (None, None))
            if before is not stored:
                new = manifests.decode(stored.body, Checkpoint, where=name)
                if claim is not None and _robbed(claim, new, self.bucket.clock):
                    raise RuleBroken(f"{actor} took {name} from {claim.owner}, who holds it")
                self._claims[name] = stored, new
            owner = self._claims[name][1]
            if owner.upload_id in self.bucket.aborted:
                raise RuleBroken(f"{name} names an upload that was aborted")
            lapsed = self._jumped_at < owner.expires_at < self.bucket.clock
            if self.fair and lapsed and owner.owner == f"{actor}:1":
                raise RuleBroken(f"{actor} works, and let its claim expire")

    def _check_ready(self, actor: str) -> None:
        for name, stored in self._below(layout.DATASETS):
            if not name.endswith(".ready"):
                continue
            before, old = self._ready.get(name, (None, None))
            if before is not stored:
                ready = manifests.decode_ready(stored.body, where=name)
                self._check_change(name, old, ready, actor)
                self._ready[name] = stored, ready
            ready = self._ready[name][1]
            if isinstance(ready, Live):
                zipped = self.bucket.objects.get(ready.zip_key)
                if zipped is None or zipped.etag != ready.zip_etag:
                    raise RuleBroken(f"{name} describes a zip that is not there")
                if len(zipped.body) != ready.zip_size:
                    raise RuleBroken(f"{name}: zip_size {ready.zip_size} is {len(zipped.body)}")
            if isinstance(ready, (Live, Alias)):
                if isinstance(ready, Alias):
                    self.aliases[name.removeprefix(layout.DATASETS).removesuffix(".ready")] = (
                        ready.key
                    )
                key = name.removeprefix(layout.DATASETS).removesuffix(".ready")
                self.answered |= {r for r in self._requests() if r[0].startswith(f"{key}.")}

    def _check_change(self, name: str, old: Ready | None, new: Ready, actor: str) -> None:
        """A marker goes from state to state as documented, and no builder discards a good zip."""
        generation = -1 if old is None or isinstance(old, Alias) else old.generation
        if isinstance(old, Alias) and new != old:
            raise RuleBroken(f"{actor} changed the alias {name}")
        if isinstance(new, Live) and (isinstance(old, Live) or new.generation != generation + 1):
            raise RuleBroken(f"{actor}: {name} from {old} to generation {new.generation}")
        by_builder = isinstance(new, Retired) and "sealed" in new.reason
        explained = self.faults_done["claim lost"] or self.bucket.final_etag is not str
        if by_builder and not explained:
            raise RuleBroken(f"{actor} retired {name}, though no claim was lost")

    def _check_failures(self) -> None:
        """A failure of a handler answers only who asked before that handler was called."""
        for name, stored in self._below(layout.DATASETS):
            failure = layout.parse_failure(name)
            topic = f"{failure.key}.{failure.nonce}" if failure else ""
            if failure is None or topic in self.failed:
                continue
            self.failed.add(topic)
            content = manifests.decode(stored.body, manifests.Failure, where=name)
            asked = min((at for (t, _), at in self.known_requests.items() if t == topic), default=0)
            if content.kind == "handler" and asked > self.opened.get(content.builder, 0):
                raise RuleBroken(f"{name} answers a request that came after the handler was called")

    def _check_requests(self) -> None:
        present = self._requests()
        gone = [request for request in self.known_requests if request not in present]
        unanswered = [r for r in gone if r not in self.answered and r[0] not in self.failed]
        if unanswered:
            raise RuleBroken(f"deleted unanswered: {sorted(unanswered)}")
        topics = {topic for topic, _ in self.known_requests}
        for topic, _ in gone:
            key, _, nonce = topic.rpartition(".")
            forwarded = key not in self.aliases or f"{self.aliases[key]}.{nonce}" in topics
            if not forwarded and topic not in self.failed and not nonce.startswith("junk"):
                raise RuleBroken(f"{topic} was deleted, and not forwarded")
        for request in present:
            self.known_requests.setdefault(request, self.steps)

    def _requests(self) -> set[tuple[str, float]]:
        """Topic of each request that is there, with the time it was written: nothing shows a
        client that its name is used a second time."""
        return {
            (f"{request.key}.{request.nonce}", stored.modified)
            for name, stored in self._below(layout.REQUESTS)
            if (request := layout.parse_request(name))
        }

    def _below(self, prefix: str) -> list[tuple[str, Stored]]:
        return [item for item in self.bucket.objects.items() if item[0].startswith(prefix)]


def _robbed(before: Checkpoint, after: Checkpoint, now: float) -> bool:
    """Whether the claim went to another builder before it expired or was released."""
    same = before.owner.partition(":")[0] == after.owner.partition(":")[0]
    return bool(before.owner and after.owner) and not same and before.expires_at > now
