"""What a forked child must not share with its parent, such as connections."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value made at first use, and made again in every forked child that uses it.

    Two processes that read from one connection would get each other's responses.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        """Return the value of this process. Threads that race for the first use may each get a
        value of their own."""
        made, process = self._made, os.getpid()
        if made is None or made[0] != process:
            made = self._made = (process, self._make())
        return made[1]
