"""One attempt at one key, from the claim to its release: the builder's half of the protocol.

docs/protocol.md#a-build-step-by-step lists its requests to the store in order. A model and
tests/simulation check them with this code: change them only together.
"""

from __future__ import annotations

from contextlib import ExitStack

from dscache.errors import IntegrityError, NoSuchUpload, NotWritable, StoreError, StoreFull
from dscache.protocol import markers
from dscache.protocol.manifests import Alias, Live, Request, Retired
from dscache.spec import Spec
from dscache.terminal import logger

from ..engine import Session
from ..failure import HandlerFailure
from ..hosting.messages import PlanSummary
from . import publish, requests
from .build import Build
from .claim import Claim, ClaimLost
from .context import AttemptContext, Outcome
from .heartbeat import Cancelled, Heartbeat, NoRequests, Stopped
from .progress import PREVIEW_EXAMPLES
from .publish import ReadyRegister, Step
from .requests import FailureReason, RequestSet

log = logger("dscache_builder")

MAX_TAKEOVERS = 3  # infra/systemd/dscache-builder.service allows as many restarts, and more
SMALL_EXAMPLES = 2 * PREVIEW_EXAMPLES  # fewer take hardly longer to build than to draw
RETRY_PAUSES_S = (1.0, 5.0, 15.0)
EAGER_ROUNDS = 10
MAX_ROUNDS = 100
ROUND_PAUSE_S = 1.0


class Attempt:
    """One attempt at one key."""

    def __init__(self, context: AttemptContext, key: str) -> None:
        self.context = context
        self.store = context.store
        self.key = key
        self.finished_parts = 0  # at the end of `run`, also when that raises
        self._open_handler = ExitStack()  # kept open for a preview that is drawn after the answer
        self._late_preview: Session | None = None

    def run(self) -> Outcome:
        """Claim the key, answer all its requests, release it. Raises StoreUnreachable."""
        try:
            return self._run()
        finally:
            self.context.quarantine.leave(self.key)

    def _run(self) -> Outcome:
        context = self.context
        claim = Claim.take(
            self.store,
            self.key,
            owner=context.owner,
            unique=context.unique,
            may_follow_dead=lambda: context.quarantine.enter(self.key),
        )
        if claim is None:
            log.debug("%s: another builder holds the claim, or died with it", self.key)
            return Outcome.HELD
        log.debug("%s: claimed (%d takeovers)", self.key, claim.value.takeovers)
        self.claim = claim
        self.report = context.reporter(self.key)
        self.heartbeat = Heartbeat(context, claim, self.report)
        try:
            return self._until_answered()
        except ClaimLost:
            log.warning("%s: another builder has taken over the claim; stopped", self.key)
            return Outcome.LOST
        finally:
            self.finished_parts = len(claim.value.parts)
            self._open_handler.close()

    def _until_answered(self) -> Outcome:
        rounds = 0
        while True:
            rounds += 1
            if rounds > MAX_ROUNDS:
                raise StoreError(
                    f"{self.key}: its objects have changed under the builder {MAX_ROUNDS} times in "
                    "a row: does something else write to builds/ or datasets/?"
                )
            try:
                if rounds > EAGER_ROUNDS:
                    self.heartbeat.pause_between_rounds(ROUND_PAUSE_S)
                outcome = self._round()
            except Stopped:
                self.claim.release(keep=True)
                return Outcome.STOPPED
            if outcome is not None:
                return outcome
            log.debug("%s: the state has changed; round %d starts over", self.key, rounds + 1)

    # -- steps 3 to 7: read the state, and decide

    def _round(self) -> Outcome | None:
        """From step 3 on; None: the state has changed meanwhile, start over."""
        listed = requests.list_requests(self.store, self.key)
        before = publish.read_ready(self.store, self.key)
        if isinstance(before.value, (Live, Alias)):
            return self._answer(listed, before)
        if isinstance(before.value, Retired):
            self._delete_retired(before.value)
        self.claim.of_generation(before.generation)
        outstanding = self._unanswered(listed)
        if not outstanding.nonces:
            self.claim.release(keep=True)
            return Outcome.ANSWERED
        head = self.store.head(publish.zip_name(self.claim))
        step = publish.next_step(head, self.claim.value)
        log.debug(
            "%s: generation %d, %d requests, %d parts recorded: %s", self.key, before.generation,
            len(outstanding.nonces), len(self.claim.value.parts), step.value,
        )  # fmt: skip
        return self._do(step, before, outstanding)

    def _do(self, step: Step, before: ReadyRegister, outstanding: RequestSet) -> Outcome | None:
        if step is Step.BUILD and self.claim.value.takeovers > MAX_TAKEOVERS:
            return self._fail(outstanding, _died_too_often(self.claim.value.takeovers))
        request = self._valid_request(outstanding)
        if request is None:
            return None
        if isinstance(request, FailureReason):
            return self._fail(outstanding, request)
        if step is Step.BUILD and outstanding.all_cancelled:
            cancelled = self._cancel()
            return cancelled if isinstance(cancelled, Outcome) else None
        if step is Step.BUILD:
            built = self._build(request, before, outstanding)
            if isinstance(built, Outcome):
                return built
            step = built
        if step is Step.COMPLETE:
            self.report.phase("publishing")
            step = publish.complete(self.store, self.claim)
        if step is Step.RETIRE:
            log.debug("%s: no builder has sealed this zip; retiring it", self.key)
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
        """Delete the zip of a retired generation, which may be left over."""
        self.store.delete(publish.zip_name(self.claim, retired.generation))

    def _unanswered(self, listed: RequestSet) -> RequestSet:
        """Step 5: DELETE the requests that have a failure; return the others."""
        failed = requests.list_failures(self.store, self.key) & listed.nonces
        requests.delete(self.store, self.key, failed, failed & listed.cancels)
        unanswered = listed.nonces - failed
        return RequestSet(unanswered, listed.cancels & unanswered)

    def _valid_request(self, outstanding: RequestSet) -> Request | FailureReason | None:
        """Return a request whose content has this key (all such are equal).

        If there is none: what is wrong with the last one, or None if all were withdrawn.
        """
        reason = None
        for nonce in sorted(outstanding.nonces):
            try:
                request = markers.read_request(self.store, self.key, nonce)
            except IntegrityError as error:
                reason = FailureReason("request", str(error))
                continue
            if request is not None:
                return request
        return reason

    # -- steps 8 to 13: build

    def _build(
        self, request: Request, before: ReadyRegister, outstanding: RequestSet
    ) -> Outcome | Step:
        """Build up to the seal; transient failures are retried after a pause."""
        pauses = iter(RETRY_PAUSES_S)
        pause_s = 0.0
        while True:
            try:
                self.heartbeat.pause(pause_s)
                return self._open_and_build(request, before, outstanding)
            except NoSuchUpload:
                log.debug("%s: the multipart upload no longer exists", self.key)
                return Step.AGAIN
            except Cancelled:
                return self._cancel()
            except NoRequests:
                self.claim.release(keep=True)
                return Outcome.ANSWERED
            except (HandlerFailure, StoreFull, NotWritable, OSError) as error:
                failure = _as_failure(error)
                pause_s = next(pauses, 0.0)
                if not failure.transient or not pause_s:
                    return self._fail(outstanding, _reason_of(failure))
                log.warning("%s: %s; retrying in %g s", self.key, failure, pause_s)

    def _open_and_build(
        self, request: Request, before: ReadyRegister, outstanding: RequestSet
    ) -> Outcome | Step:
        self._open_handler.close()
        self._late_preview = None
        self.report.phase("environment")
        with ExitStack() as opened:
            session = opened.enter_context(self.context.engine.open(request.spec, self.heartbeat))
            if session.resolved.key != self.key:
                return self._alias(session.resolved, before, outstanding)
            self.report.phase("planning")
            self._plan_and_build(session)
            if self._late_preview is not None:
                self._open_handler = opened.pop_all()
        return Step.COMPLETE

    def _plan_and_build(self, session: Session) -> None:
        started = self.context.clock()
        plan = session.plan()
        build = Build(
            store=self.store,
            claim=self.claim,
            session=session,
            uploads=self.context.uploads,
            heartbeat=self.heartbeat,
            unique=self.context.unique,
            scratch_bytes=self.context.scratch_bytes,
        )
        with self.report.following(session.log_tail):
            self.report.building(build.counts)
            self._preview(session, plan)
            build.seal(plan, self.context.clock() - started)

    def _preview(self, session: Session, plan: PlanSummary) -> None:
        """Draw the preview before the build, so that people see early what they will get.

        For a small dataset it is put off until the requests are answered: nobody should wait for
        an image that takes as long as the build. (A plain handler, which has no plan, can be drawn
        only after it ran.) The preview is a hint: an error in it occurs in the build as well, and
        is reported there.
        """
        if self.claim.value.parts:
            return
        if plan.examples <= SMALL_EXAMPLES:
            self._late_preview = session
        else:
            self.report.preview(session)

    def _draw_late_preview(self) -> None:
        if self._late_preview is not None:
            self.heartbeat.answered = True
            self.report.preview(self._late_preview)

    # -- answers

    def _alias(
        self, resolved: Spec, before: ReadyRegister, outstanding: RequestSet
    ) -> Outcome | Step:
        """The spec resolves to another key: request that one, and name it in the ready marker."""
        requests.forward(self.store, self.key, outstanding, resolved)
        unique = self.context.unique
        if not publish.publish_alias(self.store, self.key, resolved, before, unique):
            return Step.AGAIN
        log.info("%s: is %s", self.key, resolved.key)
        return self._answer_if_live() or Step.AGAIN

    def _answer_if_live(self) -> Outcome | None:
        """Steps 17 to 20: LIST the requests, then GET ready again; live: DELETE the listed ones."""
        listed = requests.list_requests(self.store, self.key)
        ready = publish.read_ready(self.store, self.key)
        return self._answer(listed, ready) if isinstance(ready.value, (Live, Alias)) else None

    def _answer(self, listed: RequestSet, ready: ReadyRegister) -> Outcome:
        """Delete the requests: all that were listed before `ready` was read are answered by it."""
        if isinstance(ready.value, Alias):
            requests.forward(self.store, self.key, listed, ready.value.spec)
        requests.delete(self.store, self.key, listed.nonces, listed.cancels)
        self._draw_late_preview()
        self.report.done()
        self.claim.release(keep=False)
        return Outcome.ANSWERED

    def _fail(self, outstanding: RequestSet, reason: FailureReason) -> Outcome:
        """Write failures for the nonces of this attempt only, then delete their requests."""
        self.claim.write()
        requests.fail(self.store, self.key, outstanding, reason, builder=self.context.builder)
        self.report.done()
        self.claim.release(keep=True)
        return Outcome.FAILED

    def _cancel(self) -> Outcome | Step:
        """Checkpoint without the upload, then abort it (never before), then answer."""
        outstanding = requests.list_requests(self.store, self.key)
        if not outstanding.all_cancelled:
            return Step.AGAIN
        clients = requests.cancelled_by(self.store, self.key, outstanding.nonces)
        upload_id = self.claim.value.upload_id
        self.claim.forget_upload()
        if upload_id:
            self.store.abort_upload(publish.zip_name(self.claim), upload_id)
        self._fail(outstanding, FailureReason("cancelled", f"cancelled by {clients}"))
        return Outcome.CANCELLED


def _as_failure(error: HandlerFailure | StoreFull | NotWritable | OSError) -> HandlerFailure:
    if isinstance(error, HandlerFailure):
        return error
    if isinstance(error, NotWritable):
        return HandlerFailure(
            "handler",
            f"the dataset cannot be described: {error}; make fewer shards (option batch_size), "
            "fewer or smaller features, or fewer bad samples",
        )
    if isinstance(error, OSError):
        return HandlerFailure(
            "disk",
            f"the builder cannot use the files of this build: {error}; does the handler delete or "
            "replace files outside of its working folder?",
        )
    return HandlerFailure("store", str(error))


def _reason_of(failure: HandlerFailure) -> FailureReason:
    return FailureReason(
        failure.kind, str(failure), failure.sample, failure.traceback, failure.log_tail
    )


def _died_too_often(takeovers: int) -> FailureReason:
    return FailureReason(
        "builder",
        f"{takeovers} builders in a row died or stopped responding without finishing a part; look "
        "at their logs (`journalctl -u dscache-builder`), then request it again with --retry",
    )
