"""Retire a dataset: the only way its zip is ever deleted, see docs/protocol.md#retire."""

from __future__ import annotations

from ..errors import PreconditionFailed
from ..store.objects import Objects
from . import layout, manifests, markers, registers
from .manifests import Live, Retired


def retire(store: Objects, key: str, *, nonce: str, reason: str = "") -> Live | None:
    """Mark the live dataset retired, then delete its zip; in this order.

    Returns the marker of what was retired, or None if the key is not live or another process
    changed its marker meanwhile. A crash in between leaves a zip that the next build deletes.
    """
    live, etag = markers.read_ready_register(store, key)
    if not isinstance(live, Live):
        return None
    retired = Retired(
        spec=live.spec,
        generation=live.generation,
        nonce=nonce,
        retired_at=store.now(),
        reason=reason,
    )
    try:
        registers.write(store, layout.ready(key), manifests.encode(retired), if_match=etag)
    except PreconditionFailed:
        return None
    store.delete(live.zip_key)
    return live
