"""One notification stream for all who wait in a process, whatever they wait for.

A listener is opened by the first waiter and closed after the last. It asks for the names of one
dataset_name and version, which spares a lone waiter (and the server) the progress of everything
else that is being built; a waiter for another one makes the process open a second listener, for all
datasets, and everybody who comes later uses that. So there are two connections at most, however
many keys are waited for. Events go to the waiters of their key only.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ..config import Config
from ..store.notifications import Created, Listener, Signal
from . import layout

RETURN_S = (0.0, 8.0)  # a thousand clients of a store that was started again come back over this


class RunningListener(Protocol):
    """What is needed of a listener."""

    def stop(self) -> None:
        """End it."""


Open = Callable[[Config, str, Callable[[Signal], None]], RunningListener]


def start_listener(
    config: Config, prefix: str, deliver: Callable[[Signal], None]
) -> RunningListener:
    """A started listener that comes back no sooner than a crowd of them may."""
    return Listener(config, prefix, deliver, return_s=RETURN_S).start()


class Waiter:
    """The signals for one who waits: like a queue, but only `get`."""

    def __init__(self, channel: _SharedListener, key: str) -> None:
        self._channel = channel
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self.key = key

    def get(self, timeout: float) -> Signal:
        """The next signal. Raises queue.Empty after `timeout` seconds."""
        return self._signals.get(timeout=timeout)

    def put(self, signal: Signal) -> None:
        """Deliver a signal; never blocks."""
        self._signals.put(signal)

    def watch(self, key: str) -> None:
        """Go on with the events of another key: the one that ours resolves to."""
        self._channel.move(self, key)


class _SharedListener:
    """A listener and those who wait on it."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.listener: RunningListener | None = None
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._state: Signal | None = None

    def add(self, waiter: Waiter) -> None:
        """Take a waiter in; it is told at once how the stream is."""
        with self._lock:
            self._waiters.setdefault(waiter.key, []).append(waiter)
            if self._state is not None:
                waiter.put(self._state)

    def remove(self, waiter: Waiter) -> bool:
        """Let a waiter go; whether it was the last one."""
        with self._lock:
            self._forget(waiter)
            return not self._waiters

    def move(self, waiter: Waiter, key: str) -> None:
        """Let a waiter wait for another key."""
        with self._lock:
            self._forget(waiter)
            waiter.key = key
            self._waiters.setdefault(key, []).append(waiter)

    def deliver(self, signal: Signal) -> None:
        """Pass on what the listener says."""
        with self._lock:
            if isinstance(signal, Created):
                told = self._waiters.get(layout.key_in(signal.name) or "", [])
            else:
                self._state = signal
                told = [waiter for waiters in self._waiters.values() for waiter in waiters]
            for waiter in told:
                waiter.put(signal)

    def _forget(self, waiter: Waiter) -> None:
        waiters = self._waiters[waiter.key]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[waiter.key]


class Subscriptions:
    """The listeners of one bucket and user in this process."""

    def __init__(self, config: Config, open_listener: Open = start_listener) -> None:
        self._config = config
        self._open = open_listener
        self._lock = threading.Lock()
        self._channels: list[_SharedListener] = []

    @contextmanager
    def waiting(self, key: str) -> Iterator[Waiter]:
        """Signals about a key, and about whatever it resolves to, until the block ends."""
        waiter = self._enter(key)
        try:
            yield waiter
        finally:
            self._leave(waiter)

    def _enter(self, key: str) -> Waiter:
        narrow = layout.objects_of_version(key)
        with self._lock:
            channel = next((c for c in self._channels if narrow.startswith(c.prefix)), None)
            if channel is None:
                channel = _SharedListener(layout.DATASETS if self._channels else narrow)
                channel.listener = self._open(self._config, channel.prefix, channel.deliver)
                self._channels.append(channel)  # now that it has one
            waiter = Waiter(channel, key)
            channel.add(waiter)
            return waiter

    def _leave(self, waiter: Waiter) -> None:
        channel = waiter._channel
        with self._lock:
            last = channel.remove(waiter)
            if last:
                self._channels.remove(channel)
        if last and channel.listener is not None:
            channel.listener.stop()  # not under the lock: it waits for the listener's thread


_by_bucket: dict[tuple[str, ...], Subscriptions] = {}
_lock = threading.Lock()


def subscriptions_of(config: Config) -> Subscriptions:
    """The subscriptions of this process for the endpoint, bucket and user of a configuration."""
    user = (config.access_key, config.secret_key, config.session_token)
    with _lock:
        return _by_bucket.setdefault(
            (config.require_endpoint(), config.bucket, config.region, *user), Subscriptions(config)
        )


def _forget_all() -> None:
    """In a forked child: the threads of the listeners are the parent's."""
    global _by_bucket, _lock
    _by_bucket, _lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget_all)
