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
from dscache.errors import StoreUnreachable
from dscache.protocol import layout, manifests, wait
from dscache.protocol.manifests import Checkpoint
from dscache.spec import Spec
from dscache_builder.attempt.context import Outcome
from dscache_builder.config import BuilderConfig, DatasetSource
from dscache_builder.daemon import POLL_S, Daemon
from dscache_builder.raw_watch import RawWatch
from simulation.actors import SPEC, FakeEngine, FakeHandler, FakeSession, HereAndNow
from simulation.store import Bucket, SimulatedStore
from support.running import wait_until

DEADLINE_S = 20.0


@pytest.fixture
def store() -> SimulatedStore:
    return SimulatedStore(Bucket(), lambda label: None, lambda: False)


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
    daemon._errors[SPEC.key] = 1
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
