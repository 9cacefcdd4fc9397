"""Request a dataset and wait for the answer: the client's half of the protocol.

`look` is the protocol (docs/protocol.md#a-client): a few requests to the store whose order matters.
`wait` decides when to look: at each notification, after each reconnect, and in any case from time
to time, since notifications may be lost: a few times soon, then at long intervals.

A thousand clients may wait at one store, and all of them lose it at the same moment. So none looks
immediately when the store is back: they spread over RETURN_S.
"""

from __future__ import annotations

import contextlib
import enum
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import IntegrityError, StoreUnreachable, UsageError, WaitTimeout
from ..spec import Spec, split_key
from ..store.notifications import Connected, Created, Lost, Signal
from ..store.objects import Objects
from ..terminal import logger
from . import layout, manifests, registers
from .manifests import Alias, Failure, Live, Progress, Request
from .markers import MAX_ALIASES, read_failure, read_progress, read_ready
from .priority import DEFAULT_PRIORITY

log = logger(__name__)

EARLY_S = 2.0  # with notifications: when to look first
EARLY_SHARE = (0.5, 1.5)  # and the next interval, as a share of the time waited so far
RECHECK_S = (15.0, 60.0)  # until it is longer than the jittered interval between these bounds
RECHECK_BLIND_S = (1.0, 5.0)  # without: the first interval, and the one it grows to
RETURN_S = (10.0, 40.0)  # after the stream broke off or the store did not answer
RENEWED_S = (0.0, 15.0)  # after a new stream replaced an old one: events may have been missed
WITHOUT_BUILDER_S = 4.0  # a look after that reads the progress too, if no event has brought any
GIVE_UP_S = 0.5


@dataclass(frozen=True)
class OutstandingRequest:
    """A request of this client: the spec it is for and its nonce."""

    spec: Spec
    nonce: str

    @property
    def key(self) -> str:
        """The key of the spec."""
        return self.spec.key

    @property
    def topic(self) -> str:
        """`<key>.<nonce>`: what `request_dataset` returns and waiting takes."""
        return f"{self.key}.{self.nonce}"


Answer = Live | Failure
RequestAgain = Callable[[Spec], OutstandingRequest]


def split_topic(topic: str) -> tuple[str, str]:
    """Return the key and the nonce of a topic. Raises UsageError."""
    key, _, nonce = topic.rpartition(".")
    if not (split_key(key) and layout.is_nonce(nonce)):
        raise UsageError(
            f"{topic!r} is not a topic; expected <key>.<nonce> as request_dataset returned it"
        )
    return key, nonce


def put_request(
    store: Objects,
    spec: Spec,
    *,
    nonce: str,
    client: str,
    priority: int = DEFAULT_PRIORITY,
) -> OutstandingRequest:
    """PUT a request under a nonce that was never used; a 412 can only be its own first success."""
    request = Request(
        spec=spec, nonce=nonce, client=client, requested_at=store.now(), priority=priority
    )
    name = layout.request(spec.key, nonce)
    registers.create_once(store, name, manifests.encode(request))
    return OutstandingRequest(spec, nonce)


def look(
    store: Objects, outstanding: OutstandingRequest, request_again: RequestAgain
) -> Answer | OutstandingRequest:
    """Look for the answer once. An OutstandingRequest, perhaps another one, means: keep waiting.

    `request_again` is called when the request was deleted without an answer.
    """
    for _ in range(MAX_ALIASES):
        answer = _read_answer(store, outstanding)
        if answer is None:
            name = layout.request(outstanding.key, outstanding.nonce)
            if store.head(name) is not None:
                return outstanding
            # the request may have been answered and deleted since the answer was read
            answer = _read_answer(store, outstanding)
        if answer is None:
            return request_again(outstanding.spec)
        if not isinstance(answer, Alias):
            return answer
        outstanding = OutstandingRequest(answer.spec, outstanding.nonce)
    name = layout.ready(outstanding.key)
    raise IntegrityError(f"{name}: more than {MAX_ALIASES} aliases in a row")


def _read_answer(store: Objects, outstanding: OutstandingRequest) -> Answer | Alias | None:
    ready = read_ready(store, outstanding.key)
    if isinstance(ready, (Live, Alias)):
        return ready
    return read_failure(store, outstanding.key, outstanding.nonce)


def progress_of(metadata: Mapping[str, str]) -> Progress | None:
    """Return the progress in an event's metadata, or None if there is none to decode."""
    progress = metadata.get("progress", "").encode("utf-8", "replace")
    return manifests.decode_known(progress, Progress, where="event")


class Signals(Protocol):
    """A source of signals; a queue is one."""

    def get(self, *, timeout: float) -> Signal:
        """Return the next signal. Raises queue.Empty after `timeout` seconds."""


@dataclass
class WaitOptions:
    """How to wait.

    Attributes:
        signals: source of signals.
        timeout_s: seconds to wait; None waits for ever.
        on_progress, on_note: called in the waiting thread with the builder's progress and with
            lines for people.
        watch: called with the new key when the dataset turns out to be built under another one.
        given_up: setting it from another thread ends the wait within half a second.
        clock, uniform: monotonic seconds, and random numbers between two bounds.
    """

    signals: Signals
    timeout_s: float | None = None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_note: Callable[[str], None] = lambda _: None
    watch: Callable[[str], None] = lambda _: None
    given_up: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform


def wait(
    store: Objects,
    outstanding: OutstandingRequest,
    request_again: RequestAgain,
    options: WaitOptions,
) -> Answer:
    """Look for the answer, and again whenever there is a reason to, until it is there.

    Raises WaitTimeout; the request stays, and the build continues. A store that has answered once
    and then does not is waited for; StoreUnreachable is raised if it never answered.
    """
    deadline = None if options.timeout_s is None else options.clock() + options.timeout_s
    schedule = _Schedule(options, store)
    has_looked = False
    while True:
        schedule.take_pending(outstanding)
        try:
            result = look(store, outstanding, request_again)
            has_looked = True
            if not isinstance(result, OutstandingRequest):
                return result
            before, outstanding = outstanding, result
            if outstanding != before:
                schedule.begin()
            if outstanding.key != before.key:
                options.watch(outstanding.key)
                continue  # the answer may have come before its events were watched
            schedule.check_builder(outstanding)
        except StoreUnreachable as error:
            if not has_looked:
                raise
            schedule.unreachable(error)
        schedule.until_next_look(outstanding, deadline)


class _StreamState(enum.Enum):
    UNKNOWN = "unknown"  # no signal from the listener yet
    LIVE = "live"
    LOST = "lost"  # the listener reconnects
    NONE = "none"  # this store sends no notifications


class _Schedule:
    """Decides when to look again, from signals and time."""

    def __init__(self, options: WaitOptions, store: Objects) -> None:
        self._options = options
        self._store = store
        self._stream = _StreamState.UNKNOWN
        self._look_at = self._latest_look_at = 0.0
        self._is_unreachable = False
        self._blind_interval_s = RECHECK_BLIND_S[0]
        self._noted: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """Begin to wait for a request: its build may begin just now, and has shown no progress."""
        self._began_at = self._options.clock()
        self._is_early = True
        self._builder_alive_until = -math.inf  # by the store's clock, as the progress says

    def take_pending(self, outstanding: OutstandingRequest) -> None:
        """Take the signals that have arrived already: the look that follows covers them."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._options.signals.get(timeout=0), outstanding)

    def until_next_look(self, outstanding: OutstandingRequest, deadline: float | None) -> None:
        """Return when there is a reason to look. Raises WaitTimeout at the deadline."""
        clock = self._options.clock
        end = math.inf if deadline is None else deadline
        interval_s = self._interval_s()
        self._look_at = clock() + interval_s
        self._latest_look_at = clock() + RECHECK_S[1]
        log.debug(
            "%s: no answer yet; checking again in %.1f s, or on a notification",
            outstanding.key,
            interval_s,
        )
        while True:
            now = clock()
            if now >= end:
                raise WaitTimeout(self._timeout_message(outstanding))
            if self._options.given_up.is_set():
                raise WaitTimeout(f"stopped waiting for {outstanding.key}; the build continues")
            if now >= self._look_at:
                log.debug("%s: polling", outstanding.key)
                return
            pause_s = min(max(min(self._look_at, end) - now, 0.001), GIVE_UP_S)
            try:
                signal = self._options.signals.get(timeout=pause_s)
            except queue.Empty:
                continue
            if self._take(signal, outstanding):
                return

    def check_builder(self, outstanding: OutstandingRequest) -> None:
        """Read the progress if no event brings it; note, once, if no builder works on the key."""
        is_late = self._waited_s() >= WITHOUT_BUILDER_S and "builder" not in self._noted
        if self._is_blind or (is_late and not self._is_building()):
            self._read_progress(outstanding)
        if is_late and not self._is_building():
            self._note(f"{outstanding.key} is waiting for a builder", once="builder")

    def unreachable(self, error: StoreUnreachable) -> None:
        """Note, once, that the store did not answer; the next look comes later."""
        log.debug("the store is unreachable: %s", error)
        self._is_unreachable = True
        self._note(f"the store does not answer; waiting for it ({error})", once="unreachable")

    @property
    def _is_blind(self) -> bool:
        """Whether polling is the only way to learn of progress."""
        return self._stream in (_StreamState.UNKNOWN, _StreamState.NONE)

    def _waited_s(self) -> float:
        return self._options.clock() - self._began_at

    def _is_building(self) -> bool:
        """Whether the last progress says that a builder works on the key."""
        return self._builder_alive_until > self._store.now()

    def _read_progress(self, outstanding: OutstandingRequest) -> None:
        self._show(read_progress(self._store, outstanding.key))

    def _show(self, progress: Progress | None) -> None:
        if progress is not None:
            self._builder_alive_until = progress.expires_at
            self._options.on_progress(progress)

    def _timeout_message(self, outstanding: OutstandingRequest) -> str:
        late = f"{outstanding.key} is not ready after {self._options.timeout_s:g} s"
        try:
            if not self._is_building():
                self._read_progress(outstanding)
        except StoreUnreachable as error:
            return f"{late}; the request stays ({error})"
        if self._is_building():
            return f"{late}; the build continues: `dscache get` again later, or `dscache wait`"
        return (
            f"{late}: no builder has begun it; the request stays (`dscache cancel` withdraws it). "
            f"Is a builder running that has {outstanding.spec.dataset_name} in its builder.toml?"
        )

    def _interval_s(self) -> float:
        uniform = self._options.uniform
        is_unreachable, self._is_unreachable = self._is_unreachable, False
        if self._is_blind:
            interval_s = self._blind_interval_s
            self._blind_interval_s = min(interval_s * 1.5, RECHECK_BLIND_S[1])
            return interval_s * uniform(0.8, 1.0)
        if is_unreachable or self._stream is _StreamState.LOST:
            return self._return_s()
        interval_s = uniform(*RECHECK_S)
        if self._is_early:
            early_s = max(self._waited_s(), EARLY_S) * uniform(*EARLY_SHARE)
            interval_s = min(interval_s, early_s)
        return interval_s

    def _take(self, signal: Signal, outstanding: OutstandingRequest) -> bool:
        """Take a signal into account; return whether it is a reason to look immediately."""
        if isinstance(signal, Created):
            return self._take_event(signal, outstanding)
        before = self._stream
        if isinstance(signal, Connected):
            log.debug("%s: subscribed to notifications", outstanding.key)
            self._stream, self._blind_interval_s = _StreamState.LIVE, RECHECK_BLIND_S[0]
            if before is _StreamState.LIVE:
                self._look_within(RENEWED_S)
            return before in (_StreamState.UNKNOWN, _StreamState.NONE)
        if isinstance(signal, Lost):
            log.debug("%s: notifications lost (%s)", outstanding.key, signal.reason)
            if before is _StreamState.LIVE:
                self._stream = _StreamState.LOST
                self._postpone_look()
            return False
        log.debug("%s: no notifications (%s); polling", outstanding.key, signal.reason)
        self._stream = _StreamState.NONE
        self._look_within(RECHECK_BLIND_S)
        self._note(
            f"no notifications from this store ({signal.reason}); polling every "
            f"{RECHECK_BLIND_S[0]:g}–{RECHECK_BLIND_S[1]:g} s instead",
            once="unsupported",
        )
        return False

    def _take_event(self, event: Created, outstanding: OutstandingRequest) -> bool:
        if event.name == layout.progress(outstanding.key):
            self._show(progress_of(event.metadata))
            return False
        ready = layout.ready(outstanding.key)
        failed = layout.failed(outstanding.key, outstanding.nonce)
        is_answer = event.name in (ready, failed)
        if is_answer:
            log.debug("%s: event %s", outstanding.key, event.name)
        return is_answer

    def _postpone_look(self) -> None:
        """Look within RETURN_S; but a second break must not postpone the look further."""
        return_at = self._options.clock() + self._return_s()
        self._look_at = self._latest_look_at = min(self._latest_look_at, return_at)

    def _return_s(self) -> float:
        """Return in how many seconds to look if other clients have lost the store too. That look
        reads no progress, and no early looks follow, so that few requests come at a time."""
        return_s = self._options.uniform(*RETURN_S)
        self._is_early = False
        self._began_at = self._options.clock() + return_s
        return return_s

    def _look_within(self, bounds_s: tuple[float, float]) -> None:
        look_at = self._options.clock() + self._options.uniform(*bounds_s)
        self._look_at = min(self._look_at, look_at)

    def _note(self, text: str, *, once: str) -> None:
        if once not in self._noted:
            self._noted.add(once)
            self._options.on_note(text)
