"""The real protocol code as actors of the simulation: clients, builders, an evictor."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3

from dscache.errors import StoreUnreachable
from dscache.protocol import layout, manifests, markers, wait
from dscache.protocol.manifests import Failure, Live
from dscache.protocol.retire import retire
from dscache.spec import Spec
from dscache_builder import reconcile
from dscache_builder.attempt.attempt import Attempt
from dscache_builder.attempt.context import AttemptContext, Outcome
from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.messages import Event, PlannedShard, PlanSummary, ShardBuilt, Tick
from simulation.store import SimulatedStore
from simulation.world import RuleBroken, World

SPEC = Spec.of("photos", "1.0.0", {"size": 1})
SHARDS = 3


@dataclass
class FakeHandler:
    """What handler code does, as far as the protocol can tell."""

    folder: Path
    fails: Callable[[], bool] = lambda: False
    variant: Callable[[], int] = lambda: 0  # not repeatable when it varies
    resolved: Spec = SPEC
    lock: str = "lock"
    serial: Iterator[int] = field(default_factory=itertools.count)
    broken: list[HandlerFailure] = field(default_factory=list)
    takes_s: int = 0  # seconds per shard; a heartbeat follows each
    passes: Callable[[], object] = lambda: None  # a second passes
    raw_changes: Callable[[str], str] = lambda exact: ""
    opened: int = 0
    shards_built: int = 0


@dataclass
class FakeSession:
    handler: FakeHandler
    resolved: Spec
    heartbeat: Callable[[], None]
    environment_s: float = 0.0

    @property
    def lock_digest(self) -> str:
        return self.handler.lock

    def plan(self) -> PlanSummary:
        names = [f"photos-train.tfrecord-{i:05d}-of-{SHARDS:05d}" for i in range(SHARDS)]
        shards = [PlannedShard(i, name, "train", 1, 1) for i, name in enumerate(names)]
        return PlanSummary("plan", SHARDS, shards, "raw", True)

    def build(self, indices: Iterable[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        for index in indices:
            assert may_start()
            for _ in range(self.handler.takes_s):
                self.handler.passes()
                yield Tick()
            if self.handler.fails():
                raise HandlerFailure("handler", "the handler failed")
            body = f"shard {index} variant {self.handler.variant()}".encode()
            path = self.handler.folder / f"shard-{next(self.handler.serial)}"
            path.write_bytes(body)
            self.handler.shards_built += 1
            yield ShardBuilt(
                index,
                f"photos-train.tfrecord-{index:05d}-of-{SHARDS:05d}",
                "train",
                path,
                len(body),
                zlib.crc32(body),
                blake3.blake3(body).hexdigest(),
                1,
                [],
            )

    def raw_changes(self, exact: str) -> str:
        return self.handler.raw_changes(exact)

    def features(self) -> dict[str, Any]:
        return {}

    def preview(self, count: int, to: Path) -> str:
        raise AssertionError("the silent reporter shows no preview")

    def log_tail(self) -> str:
        return ""


@dataclass
class FakeEngine:
    handler: FakeHandler
    opened: Callable[[], None] = lambda: None

    @contextmanager
    def open(self, spec: Spec, heartbeat: Callable[[], None]) -> Iterator[FakeSession]:
        self.opened()
        self.handler.opened += 1
        if self.handler.broken:
            raise self.handler.broken.pop()
        resolved = self.handler.resolved if spec == SPEC else spec
        yield FakeSession(self.handler, resolved, heartbeat)


class HereAndNow(Executor):
    """Runs what is submitted at once, in the submitting thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a future carries whatever was raised
            future.set_exception(error)
        return future


class Later(Future[Any]):
    """A part that is sent when somebody waits for it, or looks and chance wills it."""

    def __init__(self, send: Callable[[], object], chance: random.Random) -> None:
        super().__init__()
        self._send: Callable[[], object] | None = send
        self._chance = chance

    def send(self) -> None:
        """Send it, once."""
        send, self._send = self._send, None
        if send is not None:
            try:
                self.set_result(send())
            except Exception as error:  # noqa: BLE001 - a future carries whatever was raised
                self.set_exception(error)

    def done(self) -> bool:
        if self._chance.random() < 0.5:
            self.send()
        return super().done()

    def result(self, timeout: float | None = None) -> Any:
        self.send()
        return super().result(timeout)


class InAnyOrder(Executor):
    """Two parts are in flight, and either may arrive first; one of a broken attempt never does."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._sent: list[Later] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._sent and self._chance.random() < 0.5:
            self._sent.pop().send()  # the one before it, before or after this one
        future = Later(lambda: fn(*args, **kwargs), self._chance)
        self._sent.append(future)
        return future


def send_now(futures: Iterable[Future[Any]], timeout: float) -> None:
    """In place of `concurrent.futures.wait`: what is waited for is sent."""
    for future in futures:
        if isinstance(future, Later):
            future.send()


def builder(world: World, name: str, handler: FakeHandler, rounds: int | None = None) -> None:
    """A builder that looks for waiting keys `rounds` times; a crash ends it.

    Without a number it goes on until nothing is asked for and everybody else has ended, and time
    passes while it waits, so that claims of the dead expire.
    """
    serial = itertools.count()

    def body(store: SimulatedStore) -> None:
        context = AttemptContext(
            store=store,
            engine=FakeEngine(handler, lambda: world.opened.update({name: world.steps})),
            uploads=InAnyOrder(world.random) if world.in_any_order else HereAndNow(),
            owner=f"{name}:1",
            builder=name,
            unique=lambda: f"{name}-{next(serial)}",
            clock=lambda: world.bucket.clock,
            sleep=lambda seconds: store._step("sleep"),
        )
        others = [actor for actor in world.actors if actor.name != name]
        for _ in itertools.count() if rounds is None else range(rounds):
            keys = ["unknown"]
            with suppress(StoreUnreachable):
                keys = _waiting(store)
                for key in keys:
                    if Attempt(context, key).run() is Outcome.LOST:
                        _check_lost(store, key, context.owner)
            if rounds is None:
                world.bucket.clock += 5.0
                if not keys and all(actor.done for actor in others) and not world.bucket.late:
                    return

    world.add(name, body)


def _waiting(store: SimulatedStore) -> list[str]:
    """The keys to build, as the daemon finds them."""
    entries = list(store.entries(layout.REQUESTS))
    for name_of_cancel in reconcile.stray_cancels(entries):
        store.delete(name_of_cancel)
    return [waiting.key for waiting in reconcile.by_need(entries, lambda *_: 5)]


def _check_lost(store: SimulatedStore, key: str, owner: str) -> None:
    """A builder gives a claim up only when it is somebody else's."""
    stored = store.bucket.objects.get(layout.claim(key))
    if stored is None:
        return  # a fault: the object was lost
    claim = manifests.decode(stored.body, manifests.Checkpoint, where=key)
    if claim.owner == owner:
        raise RuleBroken(f"{owner} gave up a claim that it holds")


@dataclass
class Client:
    """A client that asks, looks until it is answered, and reads the zip."""

    spec: Spec = SPEC
    looks: int = 0
    asked: int = 0
    answer: Live | Failure | None = None
    zip_body: bytes = b""

    def act(self, world: World, name: str, *, cancels: bool = False) -> Client:
        def body(store: SimulatedStore) -> None:
            done = False
            while not done:
                with suppress(StoreUnreachable):
                    done = self._get(store, name, cancels)

        world.add(name, body)
        return self

    def _get(self, store: SimulatedStore, name: str, cancels: bool) -> bool:
        def ask(spec: Spec) -> wait.OutstandingRequest:
            self.asked += 1
            return wait.put_request(store, spec, nonce=f"{name}-{self.asked}", client=name)

        spec, ready = markers.resolve(store, self.spec)
        if not isinstance(ready, Live):
            found: wait.Answer | wait.OutstandingRequest = ask(spec)
            if cancels:
                self._cancel(store, found)
            while isinstance(found, wait.OutstandingRequest):
                store._step("waits")
                self.looks += 1
                with suppress(StoreUnreachable):
                    found = wait.look(store, found, ask)
        else:
            found = ready
        self.answer = found
        return isinstance(found, Failure) or self._download(store, found)

    def _cancel(self, store: SimulatedStore, out: object) -> None:
        assert isinstance(out, wait.OutstandingRequest)
        store.put(
            layout.cancel(out.key, out.nonce),
            b'{"schema":1,"nonce":"n","client":"c","cancelled_at":1}',
        )

    def _download(self, store: SimulatedStore, live: Live) -> bool:
        found = store.get(live.zip_key)
        if found is None or found.etag != live.zip_etag:
            return False  # retired meanwhile: look again
        self.zip_body = found.body
        return True


def evictor(world: World, key: str, times: int) -> None:
    """Retires what is live, up to `times` times."""

    def body(store: SimulatedStore) -> None:
        for i in range(times):
            for _ in range(20):
                store._step("considers cleaning")
                with suppress(StoreUnreachable):
                    if retire(store, key, nonce=f"evictor-{i}"):
                        break

    world.add("evictor", body)


def vandal(world: World, key: str, times: int) -> None:
    """Somebody who may write requests, and writes anything."""

    def body(store: SimulatedStore) -> None:
        for i in range(times):
            name = layout.request(key, f"junk{i}")
            with suppress(StoreUnreachable):
                store.put(name, world.random.choice([b"", b"{}", b"\xff", b'{"schema":1}']))

    world.add("vandal", body)
