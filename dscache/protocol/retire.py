"""Retire a dataset: the only way its zip is ever deleted, see docs/protocol.md#retire."""

from __future__ import annotations

from ..errors import PreconditionFailed
from ..store.objects import Objects
from . import layout, manifests, registers
from .manifests import Live, Retired


def retire(store: Objects, key: str, *, nonce: str, reason: str = "") -> Live | None:
    """Mark the live dataset retired, then delete its zip; in this order.

    Returns the marker of what was retired, or None if the key is not live or another process
    changed its marker meanwhile. A crash in between leaves a zip that the next build deletes.
    """
    name = layout.ready(key)
    stored = store.get(name)
    live = manifests.decode_ready(stored.body, where=name) if stored else None
    if stored is None or not isinstance(live, Live):
        return None
    retired = Retired(
        spec=live.spec,
        generation=live.generation,
        nonce=nonce,
        retired_at=store.now(),
        reason=reason,
    )
    try:
        registers.write(store, name, manifests.encode(retired), if_match=stored.etag)
    except PreconditionFailed:
        return None
    store.delete(live.zip_key)
    return live
