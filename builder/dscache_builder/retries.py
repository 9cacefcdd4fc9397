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
    """The errors of one key in a row: how many, and the most parts an attempt had finished."""

    count: int = 0
    parts: int = 0

    def after(self, parts: int) -> Errors:
        """One more error, in an attempt with `parts` finished parts.

        Only more parts than ever before are progress: a plain handler starts again each time.
        """
        return Errors(1, parts) if parts > self.parts else Errors(self.count + 1, self.parts)

    @property
    def pause_s(self) -> float:
        """Seconds until the next attempt."""
        return ERROR_PAUSES_S[min(self.count, len(ERROR_PAUSES_S)) - 1]

    def verdict(self, error: BaseException) -> FailureReason | None:
        """The failure to answer with if nothing is left to try, or None to try again.

        What an object says does not change by reading it again, so that fails at once. What was
        said in its place may: a proxy that garbles responses is mended.
        """
        if self.count < _limit(error):
            return None
        is_of_store = isinstance(error, (StoreError, UnreadableObject))
        kind: FailureKind = "store" if is_of_store else "builder"
        detail = str(error) or type(error).__name__
        tries = f" ({self.count} attempts in a row)" if self.count > 1 else ""
        return FailureReason(
            kind,
            f"the builder cannot get past this: {detail}{tries}; its log has the details "
            "(`journalctl -u dscache-builder`); request it again with --retry once that is mended",
        )


def _limit(error: BaseException) -> int:
    if isinstance(error, IntegrityError) and not isinstance(error, UnreadableObject):
        return 1
    return MAX_UNREACHABLE if isinstance(error, StoreUnreachable) else MAX_ERRORS
