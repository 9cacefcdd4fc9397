"""Ask for a dataset and wait for the answer: the client's half of the protocol (DESIGN §5).

`look` is the protocol: a few single requests whose order matters. `wait` decides when to look: at
each notification, after each reconnect, and every so often whatever happens.

A thousand clients may wait at one store, and all of them lose it at the same moment. So nobody
looks at once when it is back: they come one after the other, over RETURN_S.
"""

from __future__ import annotations

import contextlib
import enum
import logging
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
from . import layout, manifests, registers
from .manifests import Alias, Failure, Live, Progress, Request
from .markers import MAX_ALIASES, read_failure, read_progress, read_ready
from .priority import DEFAULT_PRIORITY

log = logging.getLogger(__name__)

RECHECK_S = (15.0, 60.0)  # with notifications: bounds of the jittered interval
RECHECK_BLIND_S = (1.0, 5.0)  # without: begins at the first and grows to the second
RETURN_S = (10.0, 40.0)  # after the stream broke off or the store did not answer
RENEWED_S = (0.0, 15.0)  # after a stream took the place of another: what fell in between
WITHOUT_BUILDER_S = (4.0, 8.0)  # without any progress: then look whether there is a builder
GIVE_UP_S = 0.5


@dataclass(frozen=True)
class OutstandingRequest:
    """A request of ours: the spec it is for and its nonce."""

    spec: Spec
    nonce: str

    @property
    def key(self) -> str:
        """Key of the spec."""
        return self.spec.key

    @property
    def topic(self) -> str:
        """`<key>.<nonce>`: what `request_dataset` returns and waiting takes."""
        return f"{self.key}.{self.nonce}"


Answer = Live | Failure
RequestAgain = Callable[[Spec], OutstandingRequest]


def split_topic(topic: str) -> tuple[str, str]:
    """Key and nonce of a topic. Raises UsageError."""
    key, _, nonce = topic.rpartition(".")
    if not (split_key(key) and nonce):
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
    """PUT the request under a nonce that was never used. A 412 is our own first success."""
    request = Request(
        spec=spec, nonce=nonce, client=client, requested_at=store.now(), priority=priority
    )
    name = layout.request(spec.key, nonce)
    registers.write(store, name, manifests.encode(request), if_match=None)
    return OutstandingRequest(spec, nonce)


def look(
    store: Objects, out: OutstandingRequest, again: RequestAgain
) -> Answer | OutstandingRequest:
    """Look for the answer once; an Outstanding back means: wait on (maybe with a new nonce).

    `again` asks once more; it is called when the request is gone without an answer.
    """
    for _ in range(MAX_ALIASES):
        answer = _answer(store, out)
        if answer is None and store.head(layout.request(out.key, out.nonce)) is not None:
            return out
        # gone: it may have been answered between our two questions
        answer = answer or _answer(store, out)
        if answer is None:
            return again(out.spec)
        if not isinstance(answer, Alias):
            return answer
        out = OutstandingRequest(answer.spec, out.nonce)
    raise IntegrityError(f"{layout.ready(out.key)}: more than {MAX_ALIASES} aliases in a row")


def _answer(store: Objects, out: OutstandingRequest) -> Answer | Alias | None:
    ready = read_ready(store, out.key)
    if isinstance(ready, (Live, Alias)):
        return ready
    return read_failure(store, out.key, out.nonce)


def progress_of(metadata: Mapping[str, str]) -> Progress | None:
    """The progress that travels in an event's metadata, or None when it is none."""
    return manifests.decode_known(metadata.get("progress", "").encode(), Progress, where="event")


class Signals(Protocol):
    """Where signals come from; a queue is one."""

    def get(self, *, timeout: float) -> Signal:
        """The next one. Raises queue.Empty after so many seconds."""


@dataclass
class WaitOptions:
    """How to wait: where signals come from, and what to tell whom.

    `timeout_s` None waits for ever. `on_progress` and `on_note` are called in the waiting thread.
    Setting `given_up` from another thread ends the waiting within half a second. `watch` is told
    the key whose events are of interest from now on, when that changes.
    """

    signals: Signals
    timeout_s: float | None = None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_note: Callable[[str], None] = lambda _: None
    watch: Callable[[str], None] = lambda _: None
    given_up: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform


def wait(store: Objects, out: OutstandingRequest, again: RequestAgain, how: WaitOptions) -> Answer:
    """Look, wait for a reason to look again, and so on until there is an answer.

    Raises WaitTimeout; the request stays, and the build goes on. A store that does not answer is
    waited for like anything else, once it has answered the first time.
    """
    deadline = None if how.timeout_s is None else how.clock() + how.timeout_s
    pace = _Schedule(how, store)
    seen = False
    while True:
        pace.absorb(out)
        try:
            found = look(store, out, again)
            seen = True
            if not isinstance(found, OutstandingRequest):
                return found
            before, out = out, found
            if out.key != before.key:
                how.watch(out.key)
                continue  # its answer may have come before we listened for it
            if pace.blind:
                pace.show(read_progress(store, out.key))
        except StoreUnreachable as error:
            if not seen:
                raise
            pace.unreachable(error)
        pace.until_next_look(out, deadline)


class _StreamState(enum.Enum):
    UNKNOWN = "unknown"  # no word from the listener yet
    LIVE = "live"
    LOST = "lost"  # it will be back
    NONE = "none"  # this store has none


class _Schedule:
    """Decides when to look again, from signals and time."""

    def __init__(self, how: WaitOptions, store: Objects) -> None:
        self.how = how
        self._store = store
        self._alive_until = -math.inf  # the builder, by the store's clock, as it said itself
        self._remark_at = how.clock() + how.uniform(*WITHOUT_BUILDER_S)
        self._stream = _StreamState.UNKNOWN
        self._look_at = self._latest = 0.0
        self._unreachable = False
        self._blind_s = RECHECK_BLIND_S[0]
        self._noted: set[str] = set()

    @property
    def blind(self) -> bool:
        """Whether nothing but looking tells what goes on."""
        return self._stream in (_StreamState.UNKNOWN, _StreamState.NONE)

    def absorb(self, out: OutstandingRequest) -> None:
        """Take the signals that are there already: the look that follows covers them."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self.how.signals.get(timeout=0), out)

    def until_next_look(self, out: OutstandingRequest, deadline: float | None) -> None:
        """Return when there is a reason to look; raise WaitTimeout at the deadline."""
        self._look_at = self.how.clock() + self._interval_s()
        self._latest = self.how.clock() + RECHECK_S[1]
        log.debug(
            "%s: no answer yet; checking again in %.1f s, or on a notification",
            out.key,
            self._look_at - self.how.clock(),
        )
        while True:
            now = self.how.clock()
            if deadline is not None and now >= deadline:
                raise WaitTimeout(self._too_late(out))
            if now >= self._remark_at:
                self._remark_at = self._remark(out)
            until = min(self._look_at, self._remark_at, math.inf if deadline is None else deadline)
            left = until - now
            if self.how.given_up.is_set():
                raise WaitTimeout(f"nobody waits for {out.key} any more; the build goes on")
            if now >= self._look_at:
                log.debug("%s: polling", out.key)
                return
            try:
                signal = self.how.signals.get(timeout=min(max(left, 0.001), GIVE_UP_S))
            except queue.Empty:
                continue
            if self._take(signal, out):
                return

    def show(self, progress: Progress | None) -> None:
        """Pass on what the builder says of itself."""
        if progress is not None:
            self._alive_until = progress.expires_at
            self.how.on_progress(progress)

    def _is_building(self, out: OutstandingRequest) -> bool:
        """Whether a builder works on it; asks the store if no event has told."""
        if self._alive_until <= self._store.now():
            self.show(read_progress(self._store, out.key))
        return self._alive_until > self._store.now()

    def _remark(self, out: OutstandingRequest) -> float:
        """Say if nobody builds it; when to see about that again."""
        try:
            if not self._is_building(out):
                self._note(f"{out.key} is waiting for a builder", once="builder")
        except StoreUnreachable:
            return self.how.clock() + self.how.uniform(*RETURN_S)
        return math.inf

    def _too_late(self, out: OutstandingRequest) -> str:
        late = f"{out.key} is not ready after {self.how.timeout_s:g} s"
        try:
            building = self._is_building(out)
        except StoreUnreachable as error:
            return f"{late}; the request stays ({error})"
        if building:
            return f"{late}; the build goes on: `dscache get` again later, or `dscache wait`"
        return (
            f"{late}: no builder has begun it; the request stays (`dscache cancel` withdraws it). "
            f"Is a builder running that has {out.spec.dataset_name} in its builder.toml?"
        )

    def unreachable(self, error: StoreUnreachable) -> None:
        """The store did not answer: say so once, and look again later."""
        log.debug("the store is unreachable: %s", error)
        self._unreachable = True
        self._note(f"the store does not answer; waiting for it ({error})", once="unreachable")

    def _interval_s(self) -> float:
        unreachable, self._unreachable = self._unreachable, False
        if self.blind:
            interval_s = self._blind_s
            self._blind_s = min(self._blind_s * 1.5, RECHECK_BLIND_S[1])
            return interval_s * self.how.uniform(0.8, 1.0)
        lost = unreachable or self._stream is _StreamState.LOST
        return self.how.uniform(*(RETURN_S if lost else RECHECK_S))

    def _take(self, signal: Signal, out: OutstandingRequest) -> bool:
        """Note what a signal says; whether it is a reason to look at once."""
        if isinstance(signal, Created):
            return self._is_news(signal, out)
        before = self._stream
        if isinstance(signal, Connected):
            log.debug("%s: subscribed to notifications", out.key)
            self._stream, self._blind_s = _StreamState.LIVE, RECHECK_BLIND_S[0]
            if before is _StreamState.LIVE:
                self._look_within(RENEWED_S)
            return before in (_StreamState.UNKNOWN, _StreamState.NONE)
        if isinstance(signal, Lost):
            if before is _StreamState.LIVE:
                self._stream = _StreamState.LOST
                self._look_later()
            log.debug("%s: notifications lost (%s)", out.key, signal.reason)
            return False
        log.debug("%s: no notifications (%s); polling", out.key, signal.reason)
        self._stream = _StreamState.NONE
        self._look_within(RECHECK_BLIND_S)
        self._note(
            f"no notifications from this store ({signal.reason}); looking every "
            f"{RECHECK_BLIND_S[0]:g}–{RECHECK_BLIND_S[1]:g} s instead",
            once="unsupported",
        )
        return False

    def _look_later(self) -> None:
        """As others have lost their stream as well, but a second break postpones nothing."""
        returned = self.how.clock() + self.how.uniform(*RETURN_S)
        self._look_at = self._latest = min(self._latest, returned)

    def _look_within(self, seconds: tuple[float, float]) -> None:
        self._look_at = min(self._look_at, self.how.clock() + self.how.uniform(*seconds))

    def _is_news(self, event: Created, out: OutstandingRequest) -> bool:
        if event.name == layout.progress(out.key):
            self.show(progress_of(event.metadata))
            return False
        answers = event.name in (layout.ready(out.key), layout.failed(out.key, out.nonce))
        if answers:
            log.debug("%s: event %s", out.key, event.name)
        return answers

    def _note(self, text: str, *, once: str) -> None:
        if once not in self._noted:
            self._noted.add(once)
            self.how.on_note(text)
