"""How a download transfers bytes: `TransferOptions`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import UsageError
from .concurrency import MAX_RANGES

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TransferOptions:
    """How to transfer a dataset.

    Attributes:
        parallel: ranges at once, 1 to 8. None starts with two and adds more while that helps.
        progress: called ten times a second, in the thread that downloads, with (bytes done, bytes
            in all).
        stall_s: a range is requested again when 256 KiB take longer than so many seconds.
        sleep: waits between attempts. None waits until the download ends, at most.
        jitter: gives numbers in [0, 1) for the length of those waits.
        clock: monotonic time in seconds.

    Raises UsageError when `parallel` is out of range.
    """

    parallel: int | None = None
    progress: Progress | None = None
    stall_s: float = 30.0
    sleep: Callable[[float], object] | None = None
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        if self.parallel is not None and not 1 <= self.parallel <= MAX_RANGES:
            raise UsageError(f"parallel: {self.parallel} is not in the range 1 to {MAX_RANGES}")
