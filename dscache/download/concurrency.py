"""How many ranges at once, when to share one, how long to pause: the decisions of a fetch. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_RANGES = 8
FIRST_RANGES = 2
FAST_RANGE_BYTES_PER_S = 200_000_000  # from here on another range only costs CPU time
WORTHWHILE_GAIN = 1.25  # of twice as many ranges
MEASURE_S = (0.25, 1.5)  # a look takes so long at least, and at most while little arrives
MEASURE_BYTES_PER_RANGE = 2 << 20
MIN_SHARED_BYTES = 1 << 20
MIN_SHARED_S = 0.5
DISTANT_S = 0.02  # an answer that takes so long comes from afar, or from a busy server
DISTANT_RANGE_BYTES_PER_S = 25_000_000  # what a connection from afar is taken to bring at first
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 10.0


class Measurement(NamedTuple):
    """What a number of ranges brought together, in bytes per second."""

    ranges: int
    bytes_per_s: float


def is_conclusive(seconds: float, received: int, ranges: int) -> bool:
    """Whether so many bytes in so much time tell what a number of ranges brings."""
    shortest, longest = MEASURE_S
    enough = received >= MEASURE_BYTES_PER_RANGE * ranges
    return seconds >= (shortest if enough else longest)


def ranges_wanted(looks: Sequence[Measurement]) -> int:
    """How many ranges to go on with, given what was seen, newest last.

    Twice as many pay where a single connection is limited (distance, shaping) and are harmless
    elsewhere: they are tried unless a range is fast already, and again while they helped.
    """
    ranges, rate = looks[-1]
    helped = len(looks) == 1 or rate >= WORTHWHILE_GAIN * looks[-2].bytes_per_s
    if rate / ranges >= FAST_RANGE_BYTES_PER_S or not helped:
        return ranges
    return min(2 * ranges, MAX_RANGES)


def is_distant(answer_s: float) -> bool:
    """Whether all ranges are worth their connections from the beginning: `answer_s` is the time
    from the first request to its answer, so with a long way most of the time is spent waiting."""
    return answer_s >= DISTANT_S


def piece_count(size: int, share_bytes: int) -> int:
    """In how many pieces to fetch a stretch of this size where each worker's share is so large."""
    return max(-(-size // max(share_bytes, MIN_SHARED_BYTES)), 1)


def worth_sharing(left: int, bytes_per_s: float) -> bool:
    """Whether to let a second connection fetch the later half of a range.

    `left` are its bytes still to come, at a rate of `bytes_per_s`. The first one gives up its
    connection where the second began, which costs two round trips.
    """
    return left >= MIN_SHARED_BYTES and left >= MIN_SHARED_S * bytes_per_s


def backoff_s(failure: int, jitter: float) -> float:
    """Seconds to wait after the `failure`th failure in a row (from 1); `jitter` is in [0, 1).

    Between half and all of 0.25 s, 0.5 s, 1 s … 10 s, so that clients of a store that was down do
    not come back in step.
    """
    return min(FIRST_BACKOFF_S * 2.0 ** (failure - 1), MAX_BACKOFF_S) * (0.5 + jitter / 2)
