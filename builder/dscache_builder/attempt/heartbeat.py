"""The heartbeat of an attempt: renew the claim, report progress, notice that it should end.

docs/protocol.md#a-build-step-by-step describes it below the table of steps.
"""

from __future__ import annotations

from . import requests
from .claim import Claim
from .context import AttemptContext
from .progress import Reporter

CANCEL_POLL_S = 2.0
PAUSE_STEP_S = 0.5


class Stopped(Exception):
    """The daemon shuts down: release the claim and keep the progress."""


class Cancelled(Exception):
    """Every outstanding request is cancelled."""


class NoRequests(Exception):
    """The requests were answered or withdrawn meanwhile."""


class Heartbeat:
    """Call it at least once a second while an attempt works.

    Raises Stopped, and ClaimLost when the claim cannot be renewed; until `answered` is set also
    Cancelled and NoRequests.
    """

    def __init__(self, context: AttemptContext, claim: Claim, reporter: Reporter) -> None:
        self.answered = False
        self._context = context
        self._claim = claim
        self._reporter = reporter
        self._polled_at = context.clock()

    def __call__(self) -> None:
        self.check_stopping()
        self._claim.renew_if_due()
        self._reporter.tick()
        if not self._claim.value.takeovers:
            self._context.quarantine.leave(self._claim.key)
        if not self.answered and self._context.clock() - self._polled_at >= CANCEL_POLL_S:
            self._poll_requests()

    def check_stopping(self) -> None:
        """Raise Stopped when the daemon shuts down."""
        if self._context.stopping():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait, with a beating heart."""
        until = self._context.clock() + seconds
        while self._context.clock() < until:
            self()
            self._context.sleep(min(PAUSE_STEP_S, seconds))

    def pause_between_rounds(self, seconds: float) -> None:
        """Wait without polling for cancels: a sealed build is not cancelled."""
        self.check_stopping()
        self._claim.renew_if_due()
        self._context.sleep(seconds)

    def _poll_requests(self) -> None:
        self._polled_at = self._context.clock()
        outstanding = requests.list_requests(self._context.store, self._claim.key)
        if not outstanding.nonces:
            raise NoRequests
        if outstanding.all_cancelled:
            raise Cancelled
