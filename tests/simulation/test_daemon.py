"""The daemon around the attempts, on a simulated bucket: how it ends, wakes and remembers."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import dscache_builder.attempt.build
import dscache_builder.daemon
import dscache_builder.raw_watch
import dscache_builder.retries
from dscache.errors import (
    AccessDenied,
    BucketMissing,
    IntegrityError,
    StoreError,
    StoreUnreachable,
    UnreadableObject,
)
from dscache.protocol import layout, manifests, markers, wait
from dscache.protocol.manifests import Checkpoint, Live
from dscache.spec import Spec
from dscache_builder.attempt.context import Outcome
from dscache_builder.attempt.give_up import give_up
from dscache_builder.attempt.requests import FailureReason
from dscache_builder.config import BuilderConfig, DatasetSource
from dscache_builder.daemon import POLL_S, Daemon
from dscache_builder.hosting.messages import ShardBuilt, Tick
from dscache_builder.raw_watch import RawWatch
from dscache_builder.retries import MAX_ERRORS, MAX_UNREACHABLE, Errors
from dscache_builder.unserved import MOST_IN_A_ROUND, PAUSE_S, Unserved
from simulation.actors import SHARDS, SPEC, FakeEngine, FakeHandler, FakeSession, HereAndNow
from simulation.store import Bucket, SimulatedStore
from support.running import wait_until

DEADLINE_S = 20.0


@pytest.fixture
def store() -> SimulatedStore:
    return SimulatedStore(Bucket(), lambda label: None)


@pytest.fixture
def daemon(store: SimulatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setattr(FakeSession, "preview", lambda *_: "")
    sources = {name: DatasetSource(name, tmp_path, name) for name in ("photos", "others")}
    config = BuilderConfig(state=tmp_path, datasets=sources)
    fakes: tuple[Any, Any] = (store, FakeEngine(FakeHandler(tmp_path)))
    return Daemon(config, *fakes, "builder", "builder")


def test_a_stop_releases_the_claim_also_when_a_part_was_just_to_be_sent(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dscache_builder.attempt.build, "part_bytes", lambda estimated: 1)
    ending = threading.Event()
    monkeypatch.setattr(daemon._watch, "stop", ending.set)
    build = FakeSession.build

    def stopped_meanwhile(work: FakeSession, *rest: Any) -> Iterator[Any]:
        daemon.stop()
        assert ending.wait(DEADLINE_S)
        yield from build(work, *rest)

    monkeypatch.setattr(FakeSession, "build", stopped_meanwhile)
    wait.put_request(store, SPEC, nonce="n", client="c")
    daemon.once()
    found = store.get(layout.claim(SPEC.key))
    assert found is not None
    assert manifests.decode(found.body, Checkpoint, where="").owner == ""


def test_stop_is_safe_wherever_a_signal_comes_between(daemon: Daemon) -> None:
    """A signal handler runs in the main thread, also while that holds a lock of the queue."""
    traced = {Daemon._wait_for_signal.__code__.co_filename, queue.__file__, threading.__file__}
    stopping: list[bool] = []
    lines: set[tuple[str, int]] = set()

    def stops_once_at_every_line(
        frame: FrameType, event: str, arg: object
    ) -> Callable[..., Any] | None:
        if stopping or frame.f_code.co_filename not in traced:
            return None
        line = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and line not in lines:
            lines.add(line)
            stopping.append(True)
            daemon.stop()
            stopping.clear()
        return stops_once_at_every_line

    def waits() -> None:
        sys.settrace(stops_once_at_every_line)
        daemon._wait_for_signal(0.01)
        sys.settrace(None)

    main = threading.Thread(target=waits, daemon=True)
    main.start()
    main.join(5.0)
    assert not main.is_alive(), "stopped for ever in its own lock"
    assert len(lines) > 1


def test_a_store_that_is_gone_is_not_asked_without_pause(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the pause of an attempt is over that broke off for the same reason."""

    def gone(prefix: str) -> Iterator[Any]:
        raise StoreUnreachable("no answer")

    pauses: list[float] = []
    monkeypatch.setattr(store, "entries", gone)
    monkeypatch.setattr(daemon, "_wait_for_signal", pauses.append)
    daemon._not_before[SPEC.key] = time.monotonic() - 1.0
    daemon._reconcile()
    daemon._sleep(None)
    assert pauses == [POLL_S[0]]


def test_environments_are_pruned_at_start_and_once_a_day(
    store: SimulatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread for upkeep, so that neither the loop nor an upload waits for it."""
    pruned: list[str] = []
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    fakes: tuple[Any, Any] = (store, FakeEngine(FakeHandler(tmp_path)))

    def prune() -> None:
        pruned.append(threading.current_thread().name)

    config = BuilderConfig(state=tmp_path, datasets={})
    daemon = Daemon(config, *fakes, "builder", "builder", prune=prune)
    counts = []
    for later_s in (0.0, 30.0, 86_000.0, 400.0):
        now[0] += later_s
        daemon._prune_when_due()
        daemon._upkeep.submit(lambda: None).result(DEADLINE_S)
        counts.append(len(pruned))
    assert counts == [1, 1, 1, 2]
    assert set(pruned) == {"upkeep_0"}


def test_what_was_answered_is_forgotten(daemon: Daemon, store: SimulatedStore) -> None:
    """A daemon runs for months."""
    other = Spec.of("photos", "1.0.0", {"size": 2})
    for spec in (SPEC, other):
        wait.put_request(store, spec, nonce="n", client="c")
    daemon._errors[SPEC.key] = Errors(1)
    assert daemon.once() == [Outcome.ANSWERED, Outcome.ANSWERED]
    assert daemon._priorities == {}
    assert daemon._errors == {}


def test_once_tells_what_broke_an_attempt_off(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def gone(*_: object) -> Iterator[FakeSession]:
        raise StoreUnreachable("no answer")
        yield

    monkeypatch.setattr(FakeEngine, "open", gone)
    wait.put_request(store, SPEC, nonce="n", client="c")
    with pytest.raises(StoreUnreachable):
        daemon.once()


def test_looking_at_raw_data_holds_up_no_upload(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A survey of millions of files may take minutes, and at the beginning all are surveyed."""
    looking, looked = threading.Event(), threading.Event()

    def survey(*_: object) -> None:
        looking.set()
        looked.wait(DEADLINE_S)

    monkeypatch.setattr(dscache_builder.raw_watch, "publish_revision", survey)
    daemon._watch.publish_settled()
    try:
        assert looking.wait(DEADLINE_S)
        assert daemon._uploads.submit(lambda: "sent").result(DEADLINE_S / 4) == "sent"
    finally:
        looked.set()


def test_a_raw_folder_that_is_not_there_does_not_end_the_builder(
    store: SimulatedStore, tmp_path: Path
) -> None:
    """It may not be mounted yet; a request for it is answered with that."""
    there = tmp_path / "there"
    there.mkdir()
    folders = {"gone": tmp_path / "gone", "there": there}
    watch = RawWatch(folders, store, HereAndNow(), clock=lambda: 0.0).start()
    try:
        watch.settled()
        (there / "picture.jpg").touch()
        wait_until(lambda: "there" in watch._changed_at, "a change in the other folder is seen")
    finally:
        watch.stop()


def hurry(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the daemon's pauses pass at once; return their lengths, as they come."""
    pauses: list[float] = []
    reap = daemon._reap

    def reap_and_forget_the_pause() -> None:
        now = time.monotonic()
        reap()
        pauses.extend(round(at - now) for at in daemon._not_before.values())
        daemon._not_before.clear()

    monkeypatch.setattr(daemon, "_reap", reap_and_forget_the_pause)
    return pauses


def until_answered(daemon: Daemon) -> None:
    """Reconcile as `run` does until nothing is requested any more."""

    def answered() -> bool:
        daemon._reconcile()
        return not daemon._running and not list(daemon.store.entries(layout.REQUESTS))

    wait_until(answered, "all requests are answered", DEADLINE_S)


@pytest.mark.parametrize(
    ("error", "kind", "tries"),
    [
        (ZeroDivisionError("a bug"), "builder", MAX_ERRORS),
        (StoreError("a proxy refuses large bodies"), "store", MAX_ERRORS),
        (StoreUnreachable("connection reset"), "store", MAX_UNREACHABLE),
        (IntegrityError("an object of this key cannot be read"), "builder", 1),
        (UnreadableObject("a proxy garbles responses"), "store", MAX_ERRORS),
    ],
)
def test_whoever_waits_is_told_what_no_attempt_gets_past(
    daemon: Daemon,
    store: SimulatedStore,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: str,
    tries: int,
) -> None:
    opened: list[str] = []

    @contextmanager
    def raises(self: FakeEngine, spec: Spec, heartbeat: object) -> Iterator[FakeSession]:
        opened.append(spec.key)
        raise error
        yield

    pauses = hurry(daemon, monkeypatch)
    monkeypatch.setattr(FakeEngine, "open", raises)
    wait.put_request(store, SPEC, nonce="n", client="c")
    until_answered(daemon)
    failure = markers.read_failure(store, SPEC.key, "n")
    assert failure is not None
    assert failure.kind == kind
    assert str(error) in failure.message
    assert len(opened) == tries
    assert pauses[: tries - 1] == [1, 5, 15, *[60] * 6][: tries - 1]
    assert daemon._errors == {}


def test_errors_are_counted_from_the_last_progress(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build of many hours outlives any number of hiccups of the store."""
    monkeypatch.setattr(dscache_builder.attempt.build, "part_bytes", lambda estimated: 1)
    whole = FakeSession.build
    built: list[int] = []

    def breaks_after_each_shard(self: FakeSession, *rest: Any) -> Iterator[Any]:
        event = next(iter(whole(self, *rest)))
        assert isinstance(event, ShardBuilt)
        yield event
        yield Tick()  # its part is recorded
        built.append(event.index)
        if event.index + 1 < SHARDS:
            raise StoreError("a hiccup")

    hurry(daemon, monkeypatch)
    daemon._context.uploads = HereAndNow()
    monkeypatch.setattr(dscache_builder.retries, "MAX_ERRORS", 2)
    monkeypatch.setattr(FakeSession, "build", breaks_after_each_shard)
    wait.put_request(store, SPEC, nonce="n", client="c")
    until_answered(daemon)
    assert built == list(range(SHARDS))
    assert isinstance(markers.read_ready(store, SPEC.key), Live)


@pytest.mark.parametrize("name", [layout.claim(SPEC.key), layout.ready(SPEC.key)])
def test_an_unreadable_register_is_told_to_whoever_waits_for_it(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hurry(daemon, monkeypatch)
    other = Spec.of("photos", "1.0.0", {"size": 2})
    store.put(name, b"\xff no manifest")
    for spec in (SPEC, other):
        wait.put_request(store, spec, nonce="n", client="c")
    until_answered(daemon)
    failure = markers.read_failure(store, SPEC.key, "n")
    assert failure is not None
    assert name in failure.message
    assert isinstance(markers.read_ready(store, other.key), Live)
    stored = store.get(name)
    assert stored is not None
    assert stored.body == b"\xff no manifest"


def test_giving_up_leaves_a_dataset_that_is_ready_after_all(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait.put_request(store, SPEC, nonce="first", client="c")
    daemon.once()
    wait.put_request(store, SPEC, nonce="second", client="c")
    reason = FailureReason("builder", "an error")
    assert give_up(daemon._context, SPEC.key, reason) is Outcome.ANSWERED
    assert markers.read_failure(store, SPEC.key, "second") is None
    assert not list(store.entries(layout.REQUESTS))


def unserved(store: SimulatedStore, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """From now on the store serves these objects no more; return the requests for them."""
    asked: list[str] = []

    def unless_unserved(request: Callable[..., Any]) -> Callable[..., Any]:
        def ask(name: str, **options: Any) -> Any:
            if name in names:
                asked.append(name)
                raise StoreUnreachable(f"{name}: timed out")
            return request(name, **options)

        return ask

    for method in ("get", "head", "delete"):
        monkeypatch.setattr(store, method, unless_unserved(getattr(store, method)))
    return asked


def test_a_request_that_the_store_does_not_serve_stops_nobody_else(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once in a while, and no more than a few are in a row."""
    others = [Spec.of("photos", "1.0.0", {"size": size}) for size in range(2, 10)]
    for spec in (SPEC, *others):
        wait.put_request(store, spec, nonce="n", client="c")
    bad = [layout.request(spec.key, "n") for spec in others[:-1]]
    stray = layout.cancel(SPEC.key, "stray")
    store.put(stray, b"")
    asked = unserved(store, monkeypatch, *bad, stray)
    with monkeypatch.context() as patch:
        patch.setattr(daemon, "_start", lambda key: None)
        daemon._reconcile()
        assert len(asked) == MOST_IN_A_ROUND
        daemon._reconcile()
        assert len(set(asked)) == len(asked) == 2 * MOST_IN_A_ROUND

    def both_are_built() -> bool:
        daemon._reconcile()
        return all(markers.read_ready(store, spec.key) for spec in (SPEC, others[-1]))

    wait_until(both_are_built, "the others are built", DEADLINE_S)


@pytest.mark.parametrize("error", [StoreUnreachable("no answer"), StoreError("no S3 listing")])
def test_a_listing_that_fails_is_tried_again(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A proxy that asks for a login is passed again one day."""

    def fails(prefix: str) -> Iterator[Any]:
        raise error

    wait.put_request(store, SPEC, nonce="n", client="c")
    with monkeypatch.context() as patch:
        patch.setattr(store, "entries", fails)
        daemon._reconcile()
    until_answered(daemon)
    assert isinstance(markers.read_ready(store, SPEC.key), Live)


@pytest.mark.parametrize("error", [AccessDenied("no"), BucketMissing("no")])
def test_a_listing_that_can_never_work_ends_the_builder(
    daemon: Daemon, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(prefix: str) -> Iterator[Any]:
        raise error

    monkeypatch.setattr(store, "entries", fails)
    with pytest.raises(type(error)):
        daemon._reconcile()


def test_an_object_that_is_not_served_is_asked_for_again_later() -> None:
    now = [0.0]
    unserved = Unserved(clock=lambda: now[0])
    asked: list[float] = []

    def gone() -> None:
        asked.append(now[0])
        raise StoreUnreachable("timed out")

    for at in (0.0, PAUSE_S / 2, PAUSE_S + 1):
        now[0] = at
        unserved.next_round()
        assert unserved.ask("x", gone) is None
        assert unserved.ask("y", lambda: 5) == 5
    assert asked == [0.0, PAUSE_S + 1]
