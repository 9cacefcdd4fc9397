"""What a forked child makes anew."""

from __future__ import annotations

import os
from collections.abc import Callable

from dscache.config import Config
from dscache.store.forks import PerProcess
from dscache.store.s3 import Store


def in_child(true: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            ok = true()
        finally:
            os._exit(0 if ok else 1)
    return os.waitpid(pid, 0)[1] == 0


def test_it_is_made_once_in_each_process() -> None:
    made: list[int] = []

    def make() -> list[int]:
        made.append(os.getpid())
        return made

    mine = PerProcess(make)
    assert mine.get() is mine.get() is made
    assert made == [os.getpid()]
    assert in_child(lambda: mine.get() is made and made[1:] == [os.getpid()])
    assert mine.get() == [os.getpid()]


def test_a_child_has_connections_of_its_own() -> None:
    store = Store(Config(endpoint="http://127.0.0.1:1", access_key="a", secret_key="b"))
    pool, client = store._signed._pool.get(), store._client
    assert in_child(lambda: store._signed._pool.get() is not pool)
    assert in_child(lambda: store._client is not client)
