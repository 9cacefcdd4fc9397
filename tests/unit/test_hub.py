"""Who shares a listener, and who is told what."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from dscache.config import Config
from dscache.protocol import layout, subscriptions
from dscache.protocol.subscriptions import Subscriptions, Waiter
from dscache.spec import Spec
from dscache.store.notifications import Connected, Created, Lost, Signal

CONFIG = Config(endpoint="http://127.0.0.1:1")


def key(name: str = "photos", number: int = 0) -> str:
    return Spec.of(name, "1.0.0", {"number": number}).key


class Listeners:
    """Listeners that say what the test says."""

    def __init__(self) -> None:
        self.open: dict[str, Callable[[Signal], None]] = {}
        self.opened: list[str] = []

    def __call__(
        self, config: Config, prefix: str, deliver: Callable[[Signal], None]
    ) -> OneListener:
        self.open[prefix] = deliver
        self.opened.append(prefix)
        return OneListener(self, prefix)

    def say(self, signal: Signal) -> None:
        for deliver in self.open.values():
            deliver(signal)


class OneListener:
    def __init__(self, listeners: Listeners, prefix: str) -> None:
        self.listeners, self.prefix = listeners, prefix

    def stop(self) -> None:
        del self.listeners.open[self.prefix]


@pytest.fixture
def listeners() -> Listeners:
    return Listeners()


@pytest.fixture
def shared(listeners: Listeners) -> Subscriptions:
    return Subscriptions(CONFIG, listeners)


def told(waiter: Waiter) -> list[Signal]:
    signals = []
    try:
        while True:
            signals.append(waiter.get(timeout=0))
    except queue.Empty:
        return signals


def test_a_lone_waiter_listens_to_its_dataset_and_version(
    shared: Subscriptions, listeners: Listeners
) -> None:
    with shared.waiting(key()):
        assert list(listeners.open) == ["datasets/photos_1.0.0_"]
    assert not listeners.open


def test_many_keys_share_one_listener_and_hear_of_their_own(
    shared: Subscriptions, listeners: Listeners
) -> None:
    with ExitStack() as stack:
        waiters = [stack.enter_context(shared.waiting(key(number=n))) for n in range(50)]
        assert len(listeners.opened) == 1
        listeners.say(Connected())
        listeners.say(Created(layout.ready(key(number=7))))
        listeners.say(Created("datasets/unrelated"))
        expected: list[list[Signal]] = [[Connected()] for _ in waiters]
        expected[7].append(Created(layout.ready(key(number=7))))
        assert [told(waiter) for waiter in waiters] == expected


def test_a_second_dataset_opens_one_listener_for_all_that_follow(
    shared: Subscriptions, listeners: Listeners
) -> None:
    with ExitStack() as stack:
        for name in ("photos", "faces", "cars", "photos", "trees"):
            stack.enter_context(shared.waiting(key(name)))
        assert listeners.opened == ["datasets/photos_1.0.0_", "datasets/"]


def test_the_listener_stays_while_somebody_waits(
    shared: Subscriptions, listeners: Listeners
) -> None:
    with shared.waiting(key(number=1)):
        with shared.waiting(key(number=2)):
            pass
        assert listeners.open
    with shared.waiting(key(number=3)):
        assert len(listeners.opened) == 2


def test_a_listener_that_could_not_be_opened_is_opened_by_the_next(listeners: Listeners) -> None:
    opened = iter([RuntimeError("can't start new thread"), None])

    def open_listener(
        config: Config, prefix: str, deliver: Callable[[Signal], None]
    ) -> OneListener:
        if error := next(opened):
            raise error
        return listeners(config, prefix, deliver)

    shared = Subscriptions(CONFIG, open_listener)
    with pytest.raises(RuntimeError, match="new thread"), shared.waiting(key()):
        pass
    with shared.waiting(key()):
        assert list(listeners.open) == ["datasets/photos_1.0.0_"]


def test_who_comes_later_is_told_how_the_stream_is(
    shared: Subscriptions, listeners: Listeners
) -> None:
    with shared.waiting(key()):
        listeners.say(Connected())
        with shared.waiting(key()) as later:
            assert told(later) == [Connected()]
        listeners.say(Lost("x"))
        with shared.waiting(key()) as later:
            assert told(later) == [Lost("x")]


def test_watching_what_the_key_resolves_to(shared: Subscriptions, listeners: Listeners) -> None:
    asked, resolved = key(number=1), key(number=2)
    with shared.waiting(asked) as waiter:
        waiter.watch(resolved)
        listeners.say(Created(layout.ready(asked)))
        listeners.say(Created(layout.ready(resolved)))
        assert told(waiter) == [Created(layout.ready(resolved))]
    assert not listeners.open


def test_one_hub_for_each_bucket_and_user() -> None:
    assert subscriptions.subscriptions_of(CONFIG) is subscriptions.subscriptions_of(
        Config(endpoint="http://127.0.0.1:1/")
    )
    assert subscriptions.subscriptions_of(CONFIG) is not subscriptions.subscriptions_of(
        Config(endpoint="http://127.0.0.1:1", bucket="b")
    )


def test_a_forked_child_has_its_own() -> None:
    before = subscriptions.subscriptions_of(CONFIG)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if subscriptions.subscriptions_of(CONFIG) is not before else 1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (layout.ready(key()), key()),
        (layout.failed(key(), "n"), key()),
        (layout.archive(key(), 2), key()),
        ("datasets/x.ready", None),
        (f"datasets/{key()}0.ready", None),
        (layout.request(key(), "n"), None),
    ],
)
def test_the_key_in_a_name(name: str, expected: str | None) -> None:
    assert layout.key_in(name) == expected
