"""Retire a dataset: the only way its zip is ever removed (DESIGN §5, cleaning)."""

from __future__ import annotations

from ..errors import PreconditionFailed
from ..store.objects import Objects
from . import layout, manifests, registers
from .manifests import Live, Retired


def retire(store: Objects, key: str, *, nonce: str, reason: str = "") -> Live | None:
    """Mark the live dataset retired, then delete its zip; in this order.

    Returns what was retired, or None when nothing is live under this key or somebody else changed
    the marker meanwhile. A crash in between leaves a zip that the next build deletes.
    """
    name = layout.ready(key)
    found = store.get(name)
    live = manifests.decode_ready(found.body, where=name) if found else None
    if found is None or not isinstance(live, Live):
        return None
    retired = Retired(
        spec=live.spec,
        generation=live.generation,
        nonce=nonce,
        retired_at=store.now(),
        reason=reason,
    )
    try:
        registers.write(store, name, manifests.encode(retired), if_match=found.etag)
    except PreconditionFailed:
        return None
    store.delete(live.zip_key)
    return live
