"""One client, made before a fork and used in several children at once, as data loaders do."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier

from dscache.store.s3 import Store

CHILDREN, OBJECTS = 4, 40


def read(store: Store, together: Barrier) -> None:
    together.wait(10)
    for number in range(OBJECTS):
        found = store.get(f"datasets/{number}")
        assert found is not None and found.body == b"%d" % number


def test_children_do_not_read_each_others_answers(store: Store, client_store: Store) -> None:
    for number in range(OBJECTS):
        store.put(f"datasets/{number}", b"%d" % number)
    assert client_store.get("datasets/0")  # the parent has an open connection
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(CHILDREN)
    children = [fork.Process(target=read, args=(client_store, together)) for _ in range(CHILDREN)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * CHILDREN
