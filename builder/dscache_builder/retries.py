"""After an attempt that ended by an error: try again after a pause, or give up. Pure.

An attempt answers what it can (docs/protocol.md#failure). An error that leaves it is one that the
attempt did not expect: the store did not respond, an object of this key cannot be read, or a bug.
"""

from __future__ import annotations

from dataclasses import dataclass

from dscache.errors import IntegrityError, StoreError, StoreUnreachable, UnreadableObject
from dscache.protocol.manifests import FailureKind

from .attempt.requests import FailureReason

ERROR_PAUSES_S = (1.0, 5.0, 15.0, 60.0)
MAX_ERRORS = 5
MAX_UNREACHABLE = 10  # the store responds to other requests meanwhile, so it is not simply down


@dataclass(frozen=True)
class Errors:
    """The errors of one key in a row.

    Attributes:
        count: how many.
        parts: the most parts that an attempt had finished.
        verdict: the failure to answer with, once nothing is left to try.
        pause_s: seconds until the next attempt, or until the answer.
    """

    count: int = 0
    parts: int = 0
    verdict: FailureReason | None = None
    pause_s: float = 0.0

    def after(self, error: BaseException, parts: int) -> Errors:
        """One more error, in an attempt with `parts` finished parts, or in giving up.

        Only more parts than ever before are progress: a plain handler starts again each time.
        """
        count = 1 if parts > self.parts else self.count + 1
        verdict = _verdict(error, count)
        gives_up = verdict is not None and self.verdict is None
        pause_s = 0.0 if gives_up else ERROR_PAUSES_S[min(count, len(ERROR_PAUSES_S)) - 1]
        return Errors(count, max(parts, self.parts), verdict or self.verdict, pause_s)


def _verdict(error: BaseException, count: int) -> FailureReason | None:
    """The failure to answer with after so many errors, or None to try again.

    What an object says does not change by reading it again, so that fails at once. What was said in
    its place may: a proxy that garbles responses is mended.
    """
    if count < _limit(error):
        return None
    kind: FailureKind = "store" if isinstance(error, (StoreError, UnreadableObject)) else "builder"
    detail = str(error) or type(error).__name__
    tries = f" ({count} attempts in a row)" if count > 1 else ""
    return FailureReason(
        kind,
        f"the builder cannot get past this: {detail}{tries}; its log has the details "
        "(`journalctl -u dscache-builder`); request it again with --retry once that is mended",
    )


def _limit(error: BaseException) -> int:
    if isinstance(error, IntegrityError) and not isinstance(error, UnreadableObject):
        return 1
    return MAX_UNREACHABLE if isinstance(error, StoreUnreachable) else MAX_ERRORS
