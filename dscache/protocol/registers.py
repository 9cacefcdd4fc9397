"""Conditional writes whose response may be lost, see docs/protocol.md#registers.

The HTTP client retries a write without a response, and the retry may meet its own first success
as a 412. Bodies of registers never repeat, so reading the object shows whose write it was.
"""

from __future__ import annotations

from ..errors import PreconditionFailed
from ..store.objects import Objects


def write(store: Objects, name: str, body: bytes, *, if_match: str | None) -> str:
    """Write a register and return its etag; `if_match` None means that it must not exist yet.

    Raises PreconditionFailed when another process wrote the register.
    """
    try:
        return store.put(name, body, if_none_match=if_match is None, if_match=if_match)
    except PreconditionFailed:
        stored = store.get(name)
        if stored is not None and stored.body == body:
            return stored.etag
        raise
