"""Conditional writes whose response may be lost, see docs/protocol.md#registers.

The HTTP client retries a write without a response, and the retry may meet its own first success
as a 412. Bodies of registers never repeat, so reading the object shows whose write it was.
"""

from __future__ import annotations

from ..errors import PreconditionFailed
from ..store.objects import Objects

LIMIT_BYTES = 64 << 20  # of the largest register, see `manifests.MAX_BYTES`


def write(store: Objects, name: str, body: bytes, *, if_match: str | None) -> str:
    """Write a register and return its etag; `if_match` None means that it must not exist yet.

    Raises PreconditionFailed when another process wrote the register.
    """
    try:
        return store.put(name, body, if_none_match=if_match is None, if_match=if_match)
    except PreconditionFailed:
        stored = store.get(name, limit_bytes=LIMIT_BYTES)
        if stored is not None and stored.body == body:
            return stored.etag
        raise


def create_once(store: Objects, name: str, body: bytes) -> None:
    """Create a one-shot object, whose name nobody else uses.

    An object that exists already, by a 412, and is gone when it is read was this very one: its
    first write had succeeded, and it was answered and deleted since. Raises PreconditionFailed
    when another content has the name.
    """
    try:
        store.put(name, body, if_none_match=True)
    except PreconditionFailed:
        stored = store.get(name, limit_bytes=LIMIT_BYTES)
        if stored is not None and stored.body != body:
            raise
