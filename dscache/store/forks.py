"""What a forked child must not share with its parent: connections, and locks somebody held."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Something made at first use, and once more in every forked child that uses it.

    Two processes that read from one connection get each other's answers.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        """That of this process. Several threads may be the first; each gets one that works."""
        made, process = self._made, os.getpid()
        if made is None or made[0] != process:
            made = self._made = (process, self._make())
        return made[1]
