"""The daemon's loop: on a notification or a timer, it reconciles and starts attempts."""

from __future__ import annotations

import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from dscache.errors import AccessDenied, BucketMissing, DscacheError, StoreError, StoreUnreachable
from dscache.protocol import layout, markers
from dscache.protocol.priority import DEFAULT_PRIORITY
from dscache.protocol.selftest import check_conditional_create
from dscache.store.notifications import Connected, Listener, Lost, Signal, Unsupported
from dscache.store.objects import ListedObject
from dscache.store.s3 import Store
from dscache.terminal import logger

from . import reconcile
from .attempt.attempt import Attempt
from .attempt.context import AttemptContext, Outcome
from .attempt.give_up import give_up
from .attempt.progress import BucketReporter
from .config import BuilderConfig
from .engine import Engine
from .notify import Notifier
from .raw_watch import RawWatch
from .reconcile import WaitingKey
from .retries import ERROR_PAUSES_S, Errors
from .unserved import Unserved

log = logger("dscache_builder")

POLL_S = (1.0, 5.0)
HELD_PAUSE_S = 5.0
STOP_S = 25.0
PRUNE_INTERVAL_S = 86_400.0


class _Running(NamedTuple):
    """An attempt that runs, or (`attempt` None) the answer that nothing is left to try."""

    future: Future[Outcome]
    attempt: Attempt | None


class Daemon:
    """Builds what is requested until `stop`."""

    def __init__(
        self,
        config: BuilderConfig,
        store: Store,
        engine: Engine,
        builder_id: str,
        name: str,
        *,
        prune: Callable[[], object] = lambda: None,
    ) -> None:
        self.config = config
        self.store = store
        # Not a Queue: its put, called in a signal handler, would wait for a lock of its own thread.
        self._signals: queue.SimpleQueue[Signal | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._streaming = False
        self._poll_s = POLL_S[0]
        self._running: dict[str, _Running] = {}
        self._errors: dict[str, Errors] = {}
        self._error: BaseException | None = None
        self._not_before: dict[str, float] = {}
        self._priorities: dict[str, int] = {}
        self._unserved = Unserved()
        self._builds = ThreadPoolExecutor(config.max_builds, thread_name_prefix="build")
        self._uploads = ThreadPoolExecutor(2 * config.max_builds, thread_name_prefix="upload")
        # A thread of its own: surveying or deleting many files must not hold up uploads.
        self._upkeep = ThreadPoolExecutor(1, thread_name_prefix="upkeep")
        self._prune = prune
        self._prune_at = time.monotonic()
        self._watch = RawWatch(
            {name: source.raw for name, source in config.datasets.items()}, store, self._upkeep
        )
        self.outcomes: list[Outcome] = []
        self._context = AttemptContext(
            store=store,
            engine=engine,
            uploads=self._uploads,
            owner=f"{builder_id}:{secrets.token_hex(8)}",
            builder=name,
            unique=lambda: secrets.token_hex(8),
            stopping=self._stopping.is_set,
            scratch_bytes=config.scratch_bytes,
            reporter=lambda key: BucketReporter(store, key, attempt=secrets.token_hex(4)),
        )

    def stop(self) -> None:
        """Release all claims and end. Safe in a signal handler."""
        self._stopping.set()
        self._signals.put(None)

    def run(self, notifier: Notifier) -> None:
        """Serve until `stop`. Raises AccessDenied or BucketMissing if it can never work."""
        with self._listening(), self._ending():
            self._until_reachable(notifier)
            notifier.ready()
            self._watch.start()
            while not self._stopping.is_set():
                self._watch.publish_settled()
                self._prune_when_due()
                notifier.watchdog()
                notifier.status(f"{len(self._running)} building")
                self._reconcile()
                self._sleep(notifier.watchdog_interval_s)
            notifier.stopping()

    def once(self) -> list[Outcome]:
        """Build what is requested now, and return the outcomes of the attempts.

        If an attempt raised an exception, raises it once all others have ended.
        """
        with self._ending():
            self._reconcile(raise_errors=True)
            while self._running and not self._stopping.is_set():
                self._wait_for_signal(1.0)
                self._reconcile(raise_errors=True)
        if self._error is not None:
            raise self._error
        return self.outcomes

    def _prune_when_due(self) -> None:
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_INTERVAL_S
            self._upkeep.submit(self._prune)

    # -- waking up

    @contextmanager
    def _listening(self) -> Iterator[None]:
        with Listener(self.store.config, layout.REQUESTS, self._signals.put):
            yield

    def _sleep(self, watchdog_s: float | None) -> None:
        """Wait for a signal, or until the next reconciliation or watchdog message is due."""
        seconds = self.config.reconcile_s * random.uniform(0.5, 1.0)
        if not self._streaming:
            seconds = self._poll_s
            self._poll_s = min(self._poll_s * 1.5, POLL_S[1])
        if watchdog_s is not None:
            seconds = min(seconds, watchdog_s)
        paused = [at - time.monotonic() for at in self._not_before.values()]
        self._wait_for_signal(min([seconds, *(max(pause, 0.05) for pause in paused)]))

    def _wait_for_signal(self, seconds: float) -> None:
        try:
            signals = [self._signals.get(timeout=seconds)]
        except queue.Empty:
            return
        while not self._signals.empty():  # a thousand notifications need one reconciliation
            signals.append(self._signals.get_nowait())
        for signal in signals:
            self._note(signal)

    def _note(self, signal: Signal | None) -> None:
        if isinstance(signal, Connected):
            if not self._streaming:
                log.info("listening for requests in bucket %s", self.store.bucket)
            self._streaming, self._poll_s = True, POLL_S[0]
        elif isinstance(signal, Lost):
            self._streaming = False
            log.debug("the notification stream broke off (%s); polling", signal.reason)
        elif isinstance(signal, Unsupported):
            self._streaming = False
            log.warning("no notifications (%s); polling every 1 to 5 s", signal.reason)

    # -- reconciling

    def _reconcile(self, *, raise_errors: bool = False) -> None:
        self._reap()
        slots = self.config.max_builds - len(self._running)
        now = time.monotonic()
        self._not_before = {key: at for key, at in self._not_before.items() if at > now}
        self._unserved.next_round()
        try:
            entries = list(self.store.entries(layout.REQUESTS))
        except StoreError as error:
            if raise_errors or isinstance(error, (AccessDenied, BucketMissing)):
                raise
            log.warning("%s", error)
            return
        for name in reconcile.stray_cancels(entries):
            self._unserved.ask(name, partial(self.store.delete, name))
        waiting = reconcile.by_need(entries, self._priority_of)
        self._forget_answered(entries, waiting)
        startable = reconcile.startable(waiting, self._running, self._not_before, now, slots)
        log.debug(
            "reconciled: %d keys requested, %d running, starting %d", len(waiting),
            len(self._running), len(startable),
        )  # fmt: skip
        for key in startable:
            self._start(key)

    def _forget_answered(self, entries: list[ListedObject], waiting: list[WaitingKey]) -> None:
        """Forget the priorities and errors of keys that are no longer requested."""
        names, keys = {entry.name for entry in entries}, {key.key for key in waiting}
        self._priorities = {name: p for name, p in self._priorities.items() if name in names}
        self._errors = {key: errors for key, errors in self._errors.items() if key in keys}

    def _priority_of(self, key: str, nonce: str) -> int:
        """The priority of a request, read once; the default if it cannot be read.

        The attempt then reports what is wrong with it.
        """
        name = layout.request(key, nonce)
        if name not in self._priorities:
            priority = self._unserved.ask(name, partial(self._read_priority, key, nonce))
            if priority is None:
                return DEFAULT_PRIORITY
            self._priorities[name] = priority
        return self._priorities[name]

    def _read_priority(self, key: str, nonce: str) -> int:
        try:
            request = markers.read_request(self.store, key, nonce)
        except StoreUnreachable:
            raise
        except DscacheError:
            return DEFAULT_PRIORITY
        return request.priority if request else DEFAULT_PRIORITY

    def _until_reachable(self, notifier: Notifier) -> None:
        pauses = iter(ERROR_PAUSES_S)
        while not self._stopping.is_set():
            try:
                check_conditional_create(self.store, secrets.token_hex(8))
                return
            except StoreUnreachable as error:
                log.warning("%s", error)
                notifier.status("waiting for the store")
                self._stopping.wait(next(pauses, ERROR_PAUSES_S[-1]))

    # -- attempts

    def _start(self, key: str) -> None:
        verdict = self._errors.get(key, Errors()).verdict
        if verdict is None:
            attempt = Attempt(self._context, key)
            future = self._builds.submit(attempt.run)
        else:
            attempt = None
            future = self._builds.submit(give_up, self._context, key, verdict)
        self._running[key] = _Running(future, attempt)
        future.add_done_callback(lambda _: self._signals.put(None))

    def _reap(self) -> None:
        for key, (future, attempt) in list(self._running.items()):
            if not future.done():
                continue
            del self._running[key]
            error = future.exception()
            if error is not None:
                self._pause_after(key, error, attempt.finished_parts if attempt else 0)
                continue
            outcome = future.result()
            log.debug("%s: %s", key, outcome.value)
            self.outcomes = [*self.outcomes[-99:], outcome]
            if outcome is not Outcome.HELD:
                self._errors.pop(key, None)
            else:
                self._not_before[key] = time.monotonic() + HELD_PAUSE_S

    def _pause_after(self, key: str, error: BaseException, parts: int) -> None:
        """After an attempt that raised: a pause, and if nothing is left to try, giving up."""
        self._error = error
        errors = self._errors[key] = self._errors.get(key, Errors()).after(error, parts)
        pause_s = errors.pause_s
        self._not_before[key] = time.monotonic() + pause_s
        known = isinstance(error, DscacheError)
        log.error(
            "%s: %s; %s", key, error,
            f"retrying in {pause_s:g} s" if pause_s else "giving up",
            exc_info=None if known else error,
        )  # fmt: skip

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._stopping.set()
            self._builds.shutdown(wait=False, cancel_futures=True)
            self._upkeep.shutdown(wait=False, cancel_futures=True)
            self._watch.stop()
            deadline = time.monotonic() + STOP_S
            for future, _ in self._running.values():
                _await(future, deadline - time.monotonic())
            # Last: an attempt that can no longer send a part would not release its claim.
            self._uploads.shutdown(wait=False, cancel_futures=True)


def _await(future: Future[Outcome], seconds: float) -> None:
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    done.wait(max(seconds, 0.0))
