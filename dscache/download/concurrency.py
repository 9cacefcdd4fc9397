"""Decide how many ranges to request concurrently, when to split one, how long to wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_RANGES = 8
FIRST_RANGES = 2
FAST_RANGE_BYTES_PER_S = 200_000_000  # above this, another range only costs CPU time
WORTHWHILE_GAIN = 1.25  # required of doubling the ranges
MIN_MEASURE_S = 0.25
SLOW_MEASURE_S = 1.5  # while fewer than MEASURE_BYTES_PER_RANGE have arrived
MEASURE_BYTES_PER_RANGE = 2 << 20
MIN_SHARED_BYTES = 1 << 20
MIN_SHARED_S = 0.5
DISTANT_S = 0.02  # a response that takes this long is from a distant or busy server
DISTANT_RANGE_BYTES_PER_S = 25_000_000  # initial estimate for a distant server
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 10.0


class Measurement(NamedTuple):
    """The throughput of a number of concurrent ranges, in bytes per second."""

    ranges: int
    bytes_per_s: float


def is_conclusive(seconds: float, received: int, ranges: int) -> bool:
    """Whether `received` bytes in `seconds` are enough to measure the throughput of `ranges`."""
    has_enough_bytes = received >= MEASURE_BYTES_PER_RANGE * ranges
    return seconds >= (MIN_MEASURE_S if has_enough_bytes else SLOW_MEASURE_S)


def ranges_wanted(measurements: Sequence[Measurement]) -> int:
    """Return the number of ranges to continue with, given the measurements so far, newest last.

    Doubling helps where a single connection is limited (by distance or shaping) and does no harm
    elsewhere. So it is tried unless a range is fast already, and repeated while it helps.
    """
    ranges, rate = measurements[-1]
    helped = len(measurements) == 1 or rate >= WORTHWHILE_GAIN * measurements[-2].bytes_per_s
    if rate / ranges >= FAST_RANGE_BYTES_PER_S or not helped:
        return ranges
    return min(2 * ranges, MAX_RANGES)


def is_distant(response_s: float) -> bool:
    """Whether to open all connections immediately.

    `response_s` is the time from the first request to its response. If it is long, most of a
    download's time is spent waiting for responses.
    """
    return response_s >= DISTANT_S


def piece_count(size: int, share_bytes: int) -> int:
    """Return the number of pieces to cut `size` bytes into, given each worker's share."""
    return max(-(-size // max(share_bytes, MIN_SHARED_BYTES)), 1)


def worth_sharing(left: int, bytes_per_s: float) -> bool:
    """Whether to let a second connection fetch the second half of a range.

    `left` is the number of bytes still missing, at a rate of `bytes_per_s`. The first worker drops
    its connection where the second one started, which costs two round trips.
    """
    return left >= MIN_SHARED_BYTES and left >= MIN_SHARED_S * bytes_per_s


def backoff_s(failure: int, jitter: float) -> float:
    """Return the seconds to wait after the `failure`th consecutive failure (counted from 1).

    That is between half and all of 0.25 s, 0.5 s, 1 s … 10 s, depending on `jitter` in [0, 1), so
    that the clients of a store that was down do not all return at the same moment.
    """
    return min(FIRST_BACKOFF_S * 2.0 ** (failure - 1), MAX_BACKOFF_S) * (0.5 + jitter / 2)
