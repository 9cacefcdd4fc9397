"""Objects that the store does not serve, though it serves others: each harms only itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dscache.errors import StoreUnreachable
from dscache.store.signed_http import deadline_in
from dscache.terminal import logger

log = logger("dscache_builder")

T = TypeVar("T")

REQUEST_S = 5.0
MOST_IN_A_ROUND = 3
PAUSE_S = 300.0


class Unserved:
    """Sends requests that may fail, and bounds the time that this costs.

    An object that the store does not serve within REQUEST_S is left alone for PAUSE_S. In one
    round at most MOST_IN_A_ROUND such requests are sent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._not_before: dict[str, float] = {}
        self._failed = 0

    def next_round(self) -> None:
        """Begin a round."""
        now = self._clock()
        self._not_before = {name: at for name, at in self._not_before.items() if at > now}
        self._failed = 0

    def ask(self, name: str, request: Callable[[], T]) -> T | None:
        """Return what `request`, which is about the object `name`, returns; None if it fails.

        None also if it is not sent now. Only StoreUnreachable counts as such a failure.
        """
        if name in self._not_before or self._failed >= MOST_IN_A_ROUND:
            return None
        try:
            with deadline_in(REQUEST_S):
                return request()
        except StoreUnreachable as error:
            log.warning("%s: %s; going on without it", name, error)
            self._not_before[name] = self._clock() + PAUSE_S
            self._failed += 1
            return None
