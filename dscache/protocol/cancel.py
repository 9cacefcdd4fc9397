"""Withdraw requests, see docs/protocol.md#cancel. The build stops when no request is left."""

from __future__ import annotations

from contextlib import suppress

from ..errors import IntegrityError
from ..reference import is_topic
from ..store.objects import Objects
from . import layout, manifests
from .manifests import Alias, Cancel
from .markers import read_ready, read_request
from .wait import split_topic


def cancel(store: Objects, topic_or_key: str, *, client: str) -> int:
    """Put cancels for a topic, or for all requests of `client` for a key; return their number.

    Follows an alias: its requests were moved, with their nonces, to the key that it names.
    """
    key, nonce = split_topic(topic_or_key) if is_topic(topic_or_key) else (topic_or_key, None)
    ready = read_ready(store, key)
    if isinstance(ready, Alias):
        key = ready.key
    nonces = _nonces_of(store, key, client) if nonce is None else _if_requested(store, key, nonce)
    for nonce in nonces:
        manifest = Cancel(nonce=nonce, client=client, cancelled_at=store.now())
        store.put(layout.cancel(key, nonce), manifests.encode(manifest))
    return len(nonces)


def _if_requested(store: Objects, key: str, nonce: str) -> list[str]:
    return [nonce] if store.head(layout.request(key, nonce)) else []


def _nonces_of(store: Objects, key: str, client: str) -> list[str]:
    nonces = []
    for entry in store.entries(layout.requests_of(key)):
        name = layout.parse_request(entry.name)
        with suppress(IntegrityError):  # it cannot be one of this client's
            request = read_request(store, key, name.nonce) if name else None
            if name and request and request.client == client:
                nonces.append(name.nonce)
    return nonces
