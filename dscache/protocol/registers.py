"""Conditional writes whose answer may be lost (DESIGN §5).

The SDK repeats a write whose answer it did not get, and the repetition meets its own first success
as a 412. Bodies of registers never repeat, so reading the object settles whose write it was.
"""

from __future__ import annotations

from ..errors import PreconditionFailed
from ..store.objects import Objects


def write(store: Objects, name: str, body: bytes, *, if_match: str | None) -> str:
    """Write a register and return its etag; `if_match` None means "it must not exist yet".

    Raises PreconditionFailed when somebody else's value is there.
    """
    try:
        return store.put(name, body, if_none_match=if_match is None, if_match=if_match)
    except PreconditionFailed:
        found = store.get(name)
        if found is not None and found.body == body:
            return found.etag
        raise
