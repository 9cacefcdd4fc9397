"""Find out whether a store can be used at all: without conditional creates nothing here is safe."""

from __future__ import annotations

from ..errors import PreconditionFailed, StoreError
from ..store.objects import Objects
from . import layout

NO_KEY = f"selftest_0_{0:032x}"


def check_conditional_create(store: Objects, nonce: str) -> None:
    """PUT a new object twice with `If-None-Match: *`; the second must fail.

    The object is a cancel of a request that never was, which clients may write and builders sweep
    away. Raises StoreError when the store ignores the condition, and what the store raises.
    """
    name = layout.cancel(NO_KEY, nonce)
    store.put(name, b"{}", if_none_match=True)
    try:
        store.put(name, b"{ }", if_none_match=True)
    except PreconditionFailed:
        return
    raise StoreError(
        "this store ignores `If-None-Match: *` on PUT, so two builders could both win; use a "
        "recent MinIO, or another store with conditional writes"
    )
