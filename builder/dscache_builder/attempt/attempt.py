"""One attempt at one key, from the claim to its release: the builder's half of the protocol.

The order of the requests is DESIGN §5, rule by rule, and is checked there by a model and in
tests/simulation with this code. Change them only together.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass

from dscache.errors import NoSuchUpload, SpecError
from dscache.protocol.manifests import Alias, Live, Request, Retired
from dscache.spec import Spec
from dscache.store.objects import Objects

from ..engine import Engine, Session
from ..failure import HandlerFailure
from ..hosting.messages import PlanSummary
from . import publish, requests
from .build import Build
from .claim import Claim, ClaimLost
from .progress import PREVIEW_EXAMPLES, Reporter
from .publish import ReadyRegister, Step
from .requests import FailureReason, RequestSet

log = logging.getLogger("dscache_builder")

MAX_TAKEOVERS = 8
CANCEL_POLL_S = 2.0
SMALL_EXAMPLES = 2 * PREVIEW_EXAMPLES  # fewer take hardly longer to build than to draw
RETRY_PAUSES_S = (1.0, 5.0, 15.0)
EAGER_ROUNDS = 10
ROUND_PAUSE_S = 1.0


class Outcome(enum.Enum):
    """How an attempt ended."""

    HELD = "held by another builder"
    LOST = "claim lost"
    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"


class Stopped(Exception):
    """The daemon is going down: release the claim and keep the progress."""


class Cancelled(Exception):
    """Everybody who asked has cancelled."""


class NobodyWaits(Exception):
    """The requests were answered or withdrawn by somebody else meanwhile."""


@dataclass
class Context:
    """What attempts share. `owner` is `<builder id>:<process nonce>`; `builder` is for people."""

    store: Objects
    engine: Engine
    uploads: Executor
    owner: str
    builder: str
    unique: Callable[[], str]
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    scratch_bytes: int = 2 << 30
    reporter: Callable[[str], Reporter] = lambda _: Reporter()


class Attempt:
    """One attempt at one key."""

    def __init__(self, context: Context, key: str) -> None:
        self.context = context
        self.store = context.store
        self.key = key
        self._looked_at = context.clock()
        self._opened = ExitStack()  # the handler of a preview that is still to be drawn
        self._to_draw: Session | None = None
        self._answered = False

    def run(self) -> Outcome:
        """Claim the key, answer everybody who asks for it, release. StoreUnreachable passes."""
        context = self.context
        claim = Claim.take(self.store, self.key, owner=context.owner, unique=context.unique)
        if claim is None:
            return Outcome.HELD
        self.claim = claim
        self.report = context.reporter(self.key)
        try:
            return self._until_answered()
        except ClaimLost:
            log.warning("%s: somebody else holds the claim now; stopped", self.key)
            return Outcome.LOST
        finally:
            self._opened.close()

    def _until_answered(self) -> Outcome:
        rounds = 0
        while True:
            rounds += 1
            try:
                if rounds > EAGER_ROUNDS:
                    self._rest()
                outcome = self._once()
            except Stopped:
                self.claim.release(keep=True)
                return Outcome.STOPPED
            if outcome is not None:
                return outcome

    def _rest(self) -> None:
        """Between rounds that lead nowhere. Not a heartbeat: a sealed build is not cancelled."""
        if self.context.stopping():
            raise Stopped
        self.claim.renew_if_due()
        self.context.sleep(ROUND_PAUSE_S)

    # -- steps 2 to 4: look, and decide

    def _once(self) -> Outcome | None:
        wanted = requests.list_requests(self.store, self.key)
        before = publish.read_ready(self.store, self.key)
        if isinstance(before.value, (Live, Alias)):
            return self._answer(wanted, before)
        if isinstance(before.value, Retired):
            self._delete_retired(before.value)
        self.claim.of_generation(before.generation)
        outstanding = self._unanswered(wanted)
        if not outstanding.nonces:
            self.claim.release(keep=True)
            return Outcome.ANSWERED
        head = self.store.head(publish.zip_name(self.claim))
        step = publish.next_step(head, self.claim.value)
        return self._do(step, before, outstanding)

    def _do(self, step: Step, before: ReadyRegister, wanted: RequestSet) -> Outcome | None:
        if step is Step.BUILD and self.claim.value.takeovers > MAX_TAKEOVERS:
            return self._fail(wanted, _died_too_often(self.claim.value.takeovers))
        request = self._valid_request(wanted)
        if request is None:
            return None
        if isinstance(request, FailureReason):
            return self._fail(wanted, request)
        if step is Step.BUILD:
            built = self._build(request, before, wanted)
            if isinstance(built, Outcome):
                return built
            step = built
        if step is Step.COMPLETE:
            self.report.phase("publishing")
            step = publish.complete(self.store, self.claim)
        if step is Step.RETIRE:
            publish.retire_unknown(
                self.store, self.claim, request.spec, before, self.context.unique
            )
        if step is not Step.PUBLISH:
            return None
        builder = self.context.builder
        if not publish.publish(self.store, self.claim, request.spec, before, builder=builder):
            return None
        log.info("%s: ready", self.key)
        return self._answer_if_live()

    def _delete_retired(self, retired: Retired) -> None:
        """The zip of a retired generation may be left over."""
        self.store.delete(publish.zip_name(self.claim, retired.generation))

    def _unanswered(self, wanted: RequestSet) -> RequestSet:
        """Step 3: DELETE what a failure answers already; the rest is what this attempt answers."""
        failed = requests.list_failures(self.store, self.key) & wanted.nonces
        requests.delete(self.store, self.key, failed, failed & wanted.cancels)
        rest = wanted.nonces - failed
        return RequestSet(rest, wanted.cancels & rest)

    def _valid_request(self, wanted: RequestSet) -> Request | FailureReason | None:
        """One request whose content has this key (any will do: they are equal), or what is wrong
        with all of them, or None when they are gone."""
        reason = None
        for nonce in sorted(wanted.nonces):
            try:
                request = requests.read_request(self.store, self.key, nonce)
            except SpecError as error:
                reason = FailureReason("request", str(error))
                continue
            if request is not None:
                return request
        return reason

    # -- step 5: build

    def _build(self, request: Request, before: ReadyRegister, wanted: RequestSet) -> Outcome | Step:
        pauses = iter(RETRY_PAUSES_S)
        pause_s = 0.0
        while True:
            try:
                self._pause(pause_s)
                return self._open(request, before, wanted)
            except NoSuchUpload:
                return Step.AGAIN
            except Cancelled:
                return self._cancel()
            except NobodyWaits:
                self.claim.release(keep=True)
                return Outcome.ANSWERED
            except HandlerFailure as failure:
                pause_s = next(pauses, 0.0)
                if not failure.transient or not pause_s:
                    return self._fail(wanted, _reason_of(failure))
                log.warning("%s: %s; trying again in %g s", self.key, failure, pause_s)

    def _open(self, request: Request, before: ReadyRegister, wanted: RequestSet) -> Outcome | Step:
        self._opened.close()
        self._to_draw = None
        self.report.phase("environment")
        with ExitStack() as opened:
            session = opened.enter_context(self.context.engine.open(request.spec, self._heartbeat))
            if session.resolved.key != self.key:
                return self._alias(session.resolved, before, wanted)
            self.report.phase("planning")
            self._build_planned(session)
            if self._to_draw is not None:
                self._opened = opened.pop_all()
        return Step.COMPLETE

    def _build_planned(self, session: Session) -> None:
        started = self.context.clock()
        plan = session.plan()
        build = Build(
            store=self.store,
            claim=self.claim,
            session=session,
            uploads=self.context.uploads,
            heartbeat=self._heartbeat,
            unique=self.context.unique,
            scratch_bytes=self.context.scratch_bytes,
        )
        with self.report.following(session.log_tail):
            self.report.building(build.counts)
            self._preview(session, plan)
            build.seal(plan, self.context.clock() - started)

    def _preview(self, session: Session, plan: PlanSummary) -> None:
        """A hint: what goes wrong in it will go wrong, and be reported, in the build.

        It comes first, so that people see early what they will get; but nobody shall wait for a
        picture of a dataset that is built as fast as it is drawn. (A plain handler, which has no
        plan, can be drawn only after it ran.)
        """
        if self.claim.value.parts:
            return
        if plan.examples <= SMALL_EXAMPLES:
            self._to_draw = session
        else:
            self.report.preview(session)

    def _preview_late(self) -> None:
        """Everybody has been answered; draw what was put off."""
        if self._to_draw is not None:
            self._answered = True
            self.report.preview(self._to_draw)

    def _heartbeat(self) -> None:
        """At least once a second: stop when told to, renew, report, and see who still waits."""
        if self.context.stopping():
            raise Stopped
        self.claim.renew_if_due()
        self.report.tick()
        now = self.context.clock()
        if not self._answered and now - self._looked_at >= CANCEL_POLL_S:
            self._looked_at = now
            wanted = requests.list_requests(self.store, self.key)
            if not wanted.nonces:
                raise NobodyWaits
            if wanted.all_cancelled:
                raise Cancelled

    def _pause(self, seconds: float) -> None:
        until = self.context.clock() + seconds
        while self.context.clock() < until:
            self._heartbeat()
            self.context.sleep(min(0.5, seconds))

    # -- answers

    def _alias(self, resolved: Spec, before: ReadyRegister, wanted: RequestSet) -> Outcome | Step:
        """The spec resolves to another key: ask for that one, and say so in the ready marker."""
        requests.forward(self.store, self.key, wanted, resolved)
        unique = self.context.unique
        if not publish.publish_alias(self.store, self.key, resolved, before, unique):
            return Step.AGAIN
        log.info("%s: is %s", self.key, resolved.key)
        return self._answer_if_live() or Step.AGAIN

    def _answer_if_live(self) -> Outcome | None:
        """Step 8: LIST the requests, then GET ready again; live → DELETE the listed ones."""
        wanted = requests.list_requests(self.store, self.key)
        ready = publish.read_ready(self.store, self.key)
        return self._answer(wanted, ready) if isinstance(ready.value, (Live, Alias)) else None

    def _answer(self, wanted: RequestSet, ready: ReadyRegister) -> Outcome:
        """Everything that was listed before `ready` was seen live is answered by it."""
        if isinstance(ready.value, Alias):
            requests.forward(self.store, self.key, wanted, ready.value.spec)
        requests.delete(self.store, self.key, wanted.nonces, wanted.cancels)
        self._preview_late()
        self.report.done()
        self.claim.release(keep=False)
        return Outcome.ANSWERED

    def _fail(self, wanted: RequestSet, reason: FailureReason) -> Outcome:
        """Failures for the nonces of this attempt only, before their requests are deleted."""
        log.error("%s: %s: %s", self.key, reason.kind, reason.message)
        self.claim.write()
        requests.put_failures(
            self.store, self.key, wanted.nonces, reason, builder=self.context.builder
        )
        requests.delete(self.store, self.key, wanted.nonces, wanted.cancels)
        self.report.done()
        self.claim.release(keep=True)
        return Outcome.FAILED

    def _cancel(self) -> Outcome | Step:
        """Checkpoint without the upload, then abort it (never before), then answer."""
        wanted = requests.list_requests(self.store, self.key)
        if not wanted.all_cancelled:
            return Step.AGAIN
        who = requests.cancelled_by(self.store, self.key, wanted.nonces)
        upload_id = self.claim.value.upload_id
        self.claim.forget_upload()
        if upload_id:
            self.store.abort_upload(publish.zip_name(self.claim), upload_id)
        self._fail(wanted, FailureReason("cancelled", f"cancelled by {who}"))
        return Outcome.CANCELLED


def _reason_of(failure: HandlerFailure) -> FailureReason:
    return FailureReason(
        failure.kind, str(failure), failure.sample, failure.traceback, failure.log_tail
    )


def _died_too_often(takeovers: int) -> FailureReason:
    return FailureReason(
        "builder",
        f"{takeovers} builders in a row died or stopped answering without finishing a part; look "
        "at their logs (`journalctl -u dscache-builder`), then ask again with --retry",
    )
