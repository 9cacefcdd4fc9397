"""When a waiting client looks again, with a clock and signals of the test's own."""

from __future__ import annotations

import bisect
import itertools
import logging
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from dscache.errors import IntegrityError, StoreUnreachable, UsageError, WaitTimeout
from dscache.protocol import layout, manifests, markers, subscriptions, wait
from dscache.protocol.manifests import Alias, Failure, Live, Progress, Retired
from dscache.protocol.wait import OutstandingRequest, WaitOptions
from dscache.spec import Spec
from dscache.store.notifications import Connected, Created, Lost, Signal, Unsupported
from simulation.store import Bucket, SimulatedStore

Signals = list[tuple[float, Signal]]
SPEC = Spec.of("photos", "1.0.0", {})
NONCE = "n1"


@dataclass
class Script:
    """A queue that hands out signals at given times, and a clock that only it moves."""

    signals: Signals
    now: float = 0.0
    looks: list[float] = field(default_factory=list)
    requests: list[tuple[float, str]] = field(default_factory=list)
    limit_s: float = 300.0

    def get(self, timeout: float) -> Signal:
        if self.signals and self.signals[0][0] <= self.now + timeout:
            self.now, signal = self.signals.pop(0)
            return signal
        self.now += timeout
        if self.now > self.limit_s:
            raise EndOfStory
        raise queue.Empty


class EndOfStory(Exception):
    """Enough time has passed."""


def story(
    signals: Signals, *, timeout_s: float | None = None, limit_s: float = 300.0
) -> tuple[Script, WaitOptions, SimulatedStore]:
    script = Script(sorted(signals, key=lambda pair: pair[0]), limit_s=limit_s)

    def step(label: str) -> None:
        script.requests.append((round(script.now, 2), label))
        if label == f"GET {layout.ready(SPEC.key)}":
            script.looks.append(round(script.now, 2))

    store = SimulatedStore(Bucket(), step)
    how = WaitOptions(
        script,
        timeout_s=timeout_s,
        clock=lambda: script.now,
        uniform=lambda low, high: high,
    )
    return script, how, store


def never(spec: Spec) -> OutstandingRequest:
    raise AssertionError("asked again")


def looks_of(signals: Signals, limit_s: float) -> list[float]:
    script, how, store = story(signals, limit_s=limit_s)
    out = wait.put_request(store, SPEC, nonce=NONCE, client="test")
    with pytest.raises(EndOfStory):
        wait.wait(store, out, never, how)
    return script.looks


EARLY = [0.0, 0.5, 3.5, 8.75, 21.88, 54.69]  # connected after 0.5 s, with the longest intervals


def test_with_notifications_it_looks_when_connected_then_less_and_less_often() -> None:
    """Events are lost without a sign: a short build must not wait for the long interval."""
    assert looks_of([(0.5, Connected())], 180.0) == [*EARLY, 114.69, 174.69]


@pytest.mark.parametrize("change", ["asked again", "alias"])
def test_it_looks_as_often_again_for_another_request(change: str) -> None:
    script, how, store = story([(0.5, Connected())], limit_s=70.0)
    resolved = Spec.of("photos", "1.0.0", {"a": 1})
    out = wait.put_request(store, SPEC, nonce=NONCE, client="test")

    def changes(_: float, high: float) -> float:
        if len(script.looks) == len(EARLY) - 1:  # before the last of them, at 54.69 s
            wait.put_request(store, resolved, nonce=NONCE, client="test")
            alias = Alias(key=resolved.key, spec=resolved, nonce="x")
            if change == "alias":
                store.put(layout.ready(SPEC.key), manifests.encode(alias))
            store.bucket.objects.pop(layout.request(SPEC.key, NONCE), None)
        return high

    def again(spec: Spec) -> OutstandingRequest:
        return wait.put_request(store, spec, nonce="n2", client="test")

    how.uniform = changes
    with pytest.raises(EndOfStory):
        wait.wait(store, out, again, how)
    name = layout.ready(resolved.key if change == "alias" else SPEC.key)
    after = [at for at, label in script.requests if label == f"GET {name}" and at > 54.7]
    assert after == [57.69, 62.19]


def requests_of_a_thousand(
    signals: Callable[[random.Random], Signals], limit_s: float
) -> list[float]:
    """The times at which a thousand clients send requests; those that begin a wait do not count."""
    times: list[float] = []
    for seed in range(1000):
        rng = random.Random(seed)
        script, how, store = story(signals(rng), limit_s=limit_s)
        how.uniform = rng.uniform
        out = wait.put_request(store, SPEC, nonce=NONCE, client="t")
        with pytest.raises(EndOfStory):
            wait.wait(store, out, never, how)
        times += [at for at, _ in script.requests]
    return times


def test_a_thousand_that_begin_together_spread_their_looks() -> None:
    """docs/protocol.md states these figures."""
    times = requests_of_a_thousand(lambda rng: [(rng.random(), Connected())], 40.0)
    assert busiest_second(times, 1.0) < 1800
    assert busiest_second(times, 10.0) < 450
    assert busiest_second(times, 30.0) < 200


@pytest.mark.parametrize("lost_at", [1.0, 6.0])
def test_a_thousand_whose_store_restarts_do_not_look_all_at_once(lost_at: float) -> None:
    """docs/protocol.md states this figure, also for those that have only begun to wait."""

    def signals(rng: random.Random) -> Signals:
        back_at = lost_at + 1.0 + rng.uniform(*subscriptions.RETURN_S)
        return [(rng.random(), Connected()), (lost_at, Lost("x")), (back_at, Connected())]

    times = requests_of_a_thousand(signals, lost_at + 45.0)
    assert busiest_second(times, lost_at) < 220


def busiest_second(times: list[float], since: float) -> int:
    """The most of these times within any one second after `since`."""
    later = sorted(at for at in times if at > since)
    return max(bisect.bisect(later, at + 1.0) - index for index, at in enumerate(later))


def test_without_notifications_it_looks_every_one_to_five_seconds() -> None:
    looks = looks_of([(0.2, Unsupported("501"))], 30.0)
    gaps = [round(b - a, 2) for a, b in itertools.pairwise(looks)]
    assert gaps[0] <= 1.0
    assert max(gaps) <= 5.0
    assert gaps == sorted(gaps)


def test_after_a_lost_stream_it_looks_later_for_others_have_lost_it_as_well() -> None:
    looks = looks_of([(0.5, Connected()), (10.0, Lost("x")), (12.0, Connected())], 120.0)
    assert looks == [*EARLY[:4], 50.0, 110.0]


def test_while_a_stream_is_lost_it_looks_once_in_a_while() -> None:
    story: Signals = [
        (0.5, Connected()),
        (10.0, Lost("x")),
        (11.0, Lost("y")),
        (95.0, Connected()),
    ]
    assert looks_of(story, 140.0) == [*EARLY[:4], 50.0, 90.0, 130.0]


def test_a_stream_that_breaks_again_and_again_does_not_postpone_the_look() -> None:
    flaps: Signals = []
    for at in range(0, 600, 9):
        flaps += [(at + 0.5, Connected()), (at + 5.5, Lost("x"))]
    looks = looks_of(flaps, 590.0)
    assert max(b - a for a, b in itertools.pairwise(looks)) <= 60.0
    assert len(looks) > 10


def test_a_break_postpones_the_look_to_a_minute_after_the_last_one_at_most() -> None:
    looks = looks_of([(0.5, Connected()), (100.0, Lost("x")), (101.0, Connected())], 130.0)
    assert looks == [*EARLY, 114.69]


def test_notifications_that_come_to_be_are_a_reason_to_look() -> None:
    story: Signals = [
        (0.5, Connected()),
        (5.5, Unsupported("brought nothing")),
        (21.0, Connected()),
    ]
    looks = looks_of(story, 50.0)
    assert looks[:2] == [0.0, 0.5]
    assert max(b - a for a, b in itertools.pairwise(looks[1:-1])) <= 10.0
    assert looks[-1] == 21.0


def test_a_stream_that_never_came_is_no_lost_one() -> None:
    looks = looks_of([(0.2, Lost("refused")), (8.0, Connected())], 19.0)
    assert looks[1] <= 1.0
    assert looks[-1] == 8.0


def test_a_renewed_stream_is_a_reason_to_look_soon() -> None:
    assert looks_of([(0.5, Connected()), (60.0, Connected())], 100.0) == [*EARLY, 75.0]


def test_signals_that_are_there_already_cause_no_look_of_their_own() -> None:
    assert looks_of([(0.0, Connected()), (0.0, Created(layout.ready(SPEC.key)))], 2.5) == [0.0]


def test_events_of_this_key_are_reasons_and_others_are_not() -> None:
    other = Spec.of("photos", "1.0.0", {"a": 1}).key
    looks = looks_of(
        [
            (0.5, Connected()),
            (5.0, Created(layout.ready(other))),
            (6.0, Created(layout.failed(SPEC.key, "another"))),
            (7.0, Created(layout.ready(SPEC.key))),
            (8.0, Created(layout.failed(SPEC.key, NONCE))),
        ],
        19.0,
    )
    assert looks == [0.0, 0.5, 3.5, 7.0, 8.0]


def test_progress_travels_in_the_event() -> None:
    progress = Progress(phase="building", done=1, total=2, bytes=3, remaining_s=4.0, expires_at=5.0)
    import msgspec

    text = msgspec.json.encode(progress).decode()
    script, how, store = story(
        [
            (0.5, Connected()),
            (1.0, Created(layout.progress(SPEC.key), {"progress": text})),
            (1.5, Created(layout.progress(SPEC.key), {"progress": "nonsense"})),
        ],
        limit_s=3.0,
    )
    shown: list[Progress] = []
    how.on_progress = shown.append
    with pytest.raises(EndOfStory):
        wait.wait(store, wait.put_request(store, SPEC, nonce=NONCE, client="t"), never, how)
    assert shown == [progress]
    assert script.looks == [0.0, 0.5]


def test_the_time_is_up_but_the_request_stays() -> None:
    script, how, store = story([], timeout_s=7.0)
    with pytest.raises(WaitTimeout, match="not ready after 7 s: no builder has begun it"):
        wait.wait(store, wait.put_request(store, SPEC, nonce=NONCE, client="t"), never, how)
    assert 7.0 <= script.now < 7.6
    assert layout.request(SPEC.key, NONCE) in store.bucket.objects


def progress_until(expires_at: float) -> bytes:
    return manifests.encode(
        Progress(phase="plan", done=0, total=0, bytes=0, remaining_s=-1, expires_at=expires_at)
    )


@pytest.mark.parametrize(
    ("expires_at", "notes"), [(None, 1), (-100.0, 1), (1e12, 0)], ids=["none", "dead", "building"]
)
def test_without_a_builder_it_says_so_once(expires_at: float | None, notes: int) -> None:
    _, how, store = story([(0.5, Connected())], timeout_s=30.0)
    said: list[str] = []
    how.on_note = said.append
    out = wait.put_request(store, SPEC, nonce=NONCE, client="t")
    if expires_at is not None:
        store.put(layout.progress(SPEC.key), progress_until(expires_at))
    late = "no builder has begun it" if notes else "the build continues"
    with pytest.raises(WaitTimeout, match=late):
        wait.wait(store, out, never, how)
    assert said == [f"{SPEC.key} is waiting for a builder"] * notes


READ_PROGRESS = f"GET {layout.progress(SPEC.key)}"


def test_the_progress_is_read_once_if_no_event_brings_it() -> None:
    script, how, store = story([(0.0, Connected())], limit_s=100.0)
    with pytest.raises(EndOfStory):
        wait.wait(store, wait.put_request(store, SPEC, nonce=NONCE, client="t"), never, how)
    assert [at for at, label in script.requests if label == READ_PROGRESS] == [7.5]
    assert 7.5 in script.looks


def test_the_progress_is_not_read_if_an_event_has_brought_it() -> None:
    metadata = {"progress": progress_until(1e12).decode()}
    signals: Signals = [(0.0, Connected()), (1.0, Created(layout.progress(SPEC.key), metadata))]
    script, how, store = story(signals, limit_s=100.0)
    with pytest.raises(EndOfStory):
        wait.wait(store, wait.put_request(store, SPEC, nonce=NONCE, client="t"), never, how)
    assert READ_PROGRESS not in {label for _, label in script.requests}


def test_without_notifications_each_look_reads_the_progress_once() -> None:
    script, how, store = story([(0.0, Unsupported("501"))], limit_s=30.0)
    with pytest.raises(EndOfStory):
        wait.wait(store, wait.put_request(store, SPEC, nonce=NONCE, client="t"), never, how)
    assert [at for at, label in script.requests if label == READ_PROGRESS] == script.looks


def test_giving_up_from_another_thread() -> None:
    _, how, store = story([])
    how.given_up = threading.Event()
    how.given_up.set()
    with pytest.raises(WaitTimeout, match="stopped waiting"):
        wait.wait(store, wait.put_request(store, SPEC, nonce=NONCE, client="t"), never, how)


def test_a_request_that_is_gone_unanswered_is_asked_again() -> None:
    _, how, store = story([], limit_s=10.0)
    out = wait.put_request(store, SPEC, nonce=NONCE, client="t")
    del store.bucket.objects[layout.request(SPEC.key, NONCE)]
    asked: list[Spec] = []

    def again(spec: Spec) -> OutstandingRequest:
        asked.append(spec)
        return wait.put_request(store, spec, nonce="n2", client="t")

    with pytest.raises(EndOfStory):
        wait.wait(store, out, again, how)
    assert asked == [SPEC]


def test_a_failure_of_another_request_is_not_ours() -> None:
    _, how, store = story([], limit_s=3.0)
    out = wait.put_request(store, SPEC, nonce=NONCE, client="t")
    failure = Failure(kind="handler", message="m", nonce="other", failed_at=0.0)
    store.put(layout.failed(SPEC.key, "other"), manifests.encode(failure))
    with pytest.raises(EndOfStory):
        wait.wait(store, out, never, how)
    store.put(layout.failed(SPEC.key, NONCE), manifests.encode(failure))
    with pytest.raises(IntegrityError, match="nonce 'other'"):
        wait.look(store, out, never)


def test_aliases_are_followed_but_not_for_ever() -> None:
    _, _, store = story([])
    resolved = Spec.of("photos", "1.0.0", {"a": 1})
    alias = Alias(key=resolved.key, spec=resolved, nonce="x")
    store.put(layout.ready(SPEC.key), manifests.encode(alias))
    wait.put_request(store, resolved, nonce=NONCE, client="t")
    assert wait.look(store, OutstandingRequest(SPEC, NONCE), never) == OutstandingRequest(
        resolved, NONCE
    )
    _, how, _ = story([(0.5, Connected())], limit_s=3.0)
    watched: list[str] = []
    how.watch = watched.append
    with pytest.raises(EndOfStory):
        wait.wait(store, OutstandingRequest(SPEC, NONCE), never, how)
    assert watched == [resolved.key]
    back = Alias(key=SPEC.key, spec=SPEC, nonce="y")
    store.put(layout.ready(resolved.key), manifests.encode(back))
    with pytest.raises(IntegrityError, match="aliases in a row"):
        wait.look(store, OutstandingRequest(SPEC, NONCE), never)


def test_an_alias_must_name_the_key_of_its_spec() -> None:
    _, _, store = story([])
    wrong = Alias(key=SPEC.key, spec=Spec.of("photos", "1.0.0", {"a": 1}), nonce="x")
    store.put(layout.ready(SPEC.key), manifests.encode(wrong))
    with pytest.raises(IntegrityError, match="its spec has key"):
        markers.read_ready(store, SPEC.key)


@pytest.mark.parametrize("state", ["live", "retired"])
def test_a_marker_of_another_key_is_refused(state: str) -> None:
    """An answer that belongs to another question, or a file copied to a wrong name."""
    _, _, store = story([])
    other = Spec.of("photos", "1.0.0", {"a": 1})
    retired = Retired(spec=other, generation=0, nonce="x", retired_at=0.0)
    live = Live(
        spec=other, generation=0, zip_key="z", zip_etag="e", zip_size=0, seal="", members=[]
    )
    store.put(layout.ready(SPEC.key), manifests.encode(live if state == "live" else retired))
    with pytest.raises(IntegrityError, match=f"is about {SPEC.key}, .* key {other.key}"):
        markers.read_ready(store, SPEC.key)


def test_a_store_that_goes_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    script, how, store = story([], limit_s=60.0)
    out = wait.put_request(store, SPEC, nonce=NONCE, client="t")
    notes: list[str] = []
    how.on_note = notes.append
    answers = store.get

    def unreachable_between(name: str, **limits: int) -> object:
        if 2.0 < script.now < 20.0:
            raise StoreUnreachable("no answer")
        return answers(name, **limits)

    monkeypatch.setattr(store, "get", unreachable_between)
    with pytest.raises(EndOfStory):
        wait.wait(store, out, never, how)
    assert max(script.looks) > 50.0
    assert sum("does not answer" in note for note in notes) == 1
    assert notes[1:] == [f"{SPEC.key} is waiting for a builder"]


def test_a_store_that_was_never_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _, how, store = story([])

    def unreachable(name: str, **limits: int) -> object:
        raise StoreUnreachable("no answer")

    monkeypatch.setattr(store, "get", unreachable)
    with pytest.raises(StoreUnreachable):
        wait.wait(store, OutstandingRequest(SPEC, NONCE), never, how)


@pytest.mark.parametrize("topic", ["", "x.y", SPEC.key, f"{SPEC.key}."])
def test_what_is_no_topic(topic: str) -> None:
    with pytest.raises(UsageError, match="not a topic"):
        wait.split_topic(topic)


def test_decisions_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dscache.protocol.wait")
    looks_of(
        [
            (0.5, Connected()),
            (5.0, Created(layout.ready(SPEC.key))),
            (6.0, Lost("reset")),
            (50.0, Unsupported("501")),
        ],
        57.0,
    )
    later = "no answer yet; checking again in {} s, or on a notification"
    assert [message.removeprefix(f"{SPEC.key}: ") for message in caplog.messages] == [
        later.format("1.0"),
        "subscribed to notifications",
        later.format("3.0"),
        "polling",
        later.format("5.2"),
        f"event {layout.ready(SPEC.key)}",
        later.format("7.5"),
        "notifications lost (reset)",
        "polling",
        later.format("40.0"),
        "no notifications (501); polling",
        "polling",
        later.format("1.0"),
        "polling",
        later.format("1.5"),
    ]
