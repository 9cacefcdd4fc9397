"""Check that a store supports conditional creates, without which two builders could both win."""

from __future__ import annotations

from ..errors import PreconditionFailed, StoreError
from ..store.objects import Objects
from . import layout

NO_KEY = f"selftest_0_{0:032x}"
PERMANENT = "usage/selftest"  # never deleted, so nothing can interfere between the two creates


def check_conditional_create(store: Objects, nonce: str) -> None:
    """Put a cancel, which shows that requests can be written; then create one object twice.

    One of the two creates with `If-None-Match: *` must fail. The cancel cannot serve for that: it
    is for a request that does not exist, so a builder deletes it as soon as it sees it. Raises
    StoreError if the store ignores the condition, and the errors of the store.
    """
    store.put(layout.cancel(NO_KEY, nonce), b"{}", if_none_match=True)
    for content in (b"{}", b"{ }"):
        try:
            store.put(PERMANENT, content, if_none_match=True)
        except PreconditionFailed:
            return
    raise StoreError(
        "this store ignores `If-None-Match: *` on PUT, so two builders could both win; use a "
        "recent MinIO, or another store with conditional writes"
    )
