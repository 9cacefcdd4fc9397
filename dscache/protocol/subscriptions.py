"""One notification stream for all waiters of a process, whatever keys they wait for.

The first waiter opens a listener, and the last one closes it. That listener subscribes to one
dataset_name and version, which spares a lone waiter (and the server) the progress of all other
builds. The first waiter for another dataset_name or version opens a second listener, for all
datasets, which all later waiters use. So there are at most two connections, however many keys are
waited for. Events go to the waiters of their key only.
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

RETURN_S = (0.0, 8.0)  # a thousand clients of a restarted store reconnect spread over this


class RunningListener(Protocol):
    """The part of a listener that is used here."""

    def stop(self) -> None:
        """Stop delivering signals."""


Open = Callable[[Config, str, Callable[[Signal], None]], RunningListener]


def start_listener(
    config: Config, prefix: str, deliver: Callable[[Signal], None]
) -> RunningListener:
    """Start a listener that reconnects after a random pause within RETURN_S."""
    return Listener(config, prefix, deliver, return_s=RETURN_S).start()


class Waiter:
    """The signals for one waiting call: a queue of which the call uses `get`."""

    def __init__(self, channel: _SharedListener, key: str) -> None:
        self._channel = channel
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self.key = key

    def get(self, timeout: float) -> Signal:
        """Return the next signal. Raises queue.Empty after `timeout` seconds."""
        return self._signals.get(timeout=timeout)

    def put(self, signal: Signal) -> None:
        """Deliver a signal; never blocks."""
        self._signals.put(signal)

    def watch(self, key: str) -> None:
        """Receive the events of another key instead: the one that the requested key resolves to."""
        self._channel.move(self, key)


class _SharedListener:
    """A listener and its waiters."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.listener: RunningListener | None = None
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._state: Signal | None = None

    def add(self, waiter: Waiter) -> None:
        """Add a waiter; it immediately gets the last signal about the stream's state."""
        with self._lock:
            self._waiters.setdefault(waiter.key, []).append(waiter)
            if self._state is not None:
                waiter.put(self._state)

    def remove(self, waiter: Waiter) -> bool:
        """Remove a waiter; return whether it was the last one."""
        with self._lock:
            self._discard(waiter)
            return not self._waiters

    def move(self, waiter: Waiter, key: str) -> None:
        """Move a waiter to another key."""
        with self._lock:
            self._discard(waiter)
            waiter.key = key
            self._waiters.setdefault(key, []).append(waiter)

    def deliver(self, signal: Signal) -> None:
        """Pass on a signal: an event to the waiters of its key, a change of state to all."""
        with self._lock:
            if isinstance(signal, Created):
                receivers = self._waiters.get(layout.key_in(signal.name) or "", [])
            else:
                self._state = signal
                receivers = [waiter for waiters in self._waiters.values() for waiter in waiters]
            for waiter in receivers:
                waiter.put(signal)

    def _discard(self, waiter: Waiter) -> None:
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
        """Subscribe to signals about a key until the block ends."""
        waiter = self._enter(key)
        try:
            yield waiter
        finally:
            self._leave(waiter)

    def _enter(self, key: str) -> Waiter:
        narrow = layout.objects_of_version(*key.rsplit("_", 2)[:2])
        with self._lock:
            channel = next((c for c in self._channels if narrow.startswith(c.prefix)), None)
            if channel is None:
                channel = _SharedListener(layout.DATASETS if self._channels else narrow)
                channel.listener = self._open(self._config, channel.prefix, channel.deliver)
                self._channels.append(channel)  # not before: opening may fail
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
    """Return this process's subscriptions for the endpoint, bucket and user of a configuration."""
    user = (config.access_key, config.secret_key, config.session_token, str(config.aws_sdk))
    with _lock:
        return _by_bucket.setdefault(
            (config.require_endpoint(), config.bucket, config.region, *user), Subscriptions(config)
        )


def _forget_all() -> None:
    """Start afresh in a forked child: the listeners' threads exist in the parent only."""
    global _by_bucket, _lock
    _by_bucket, _lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget_all)
