"""Withdraw requests (DESIGN §5, Cancel): a wish, which the builder weighs against the others'."""

from __future__ import annotations

from collections.abc import Iterable

from ..reference import is_topic
from ..store.objects import Objects
from . import layout, manifests
from .manifests import Alias, Cancel, Request
from .markers import read_known, read_ready
from .wait import split_topic


def cancel(store: Objects, named: str, *, client: str) -> int:
    """Put cancels for a topic, or for all requests of `client` for a key; returns how many.

    An alias is followed: its requests were moved, under their nonces, to the key that it names.
    """
    key, nonce = split_topic(named) if is_topic(named) else (named, None)
    key = _resolved(store, key)
    nonces = _requests_by(store, key, client) if nonce is None else _still_there(store, key, nonce)
    return sum(1 for nonce in nonces if _put(store, key, nonce, client))


def _put(store: Objects, key: str, nonce: str, client: str) -> str:
    wish = Cancel(nonce=nonce, client=client, cancelled_at=store.now())
    return store.put(layout.cancel(key, nonce), manifests.encode(wish))


def _resolved(store: Objects, key: str) -> str:
    ready = read_ready(store, key)
    return ready.key if isinstance(ready, Alias) else key


def _still_there(store: Objects, key: str, nonce: str) -> list[str]:
    return [nonce] if store.head(layout.request(key, nonce)) else []


def _requests_by(store: Objects, key: str, client: str) -> Iterable[str]:
    for entry in store.entries(layout.requests_of(key)):
        asked = layout.parse_request(entry.name)
        request = read_known(store, entry.name, Request) if asked else None
        if asked and request and request.client == client:
            yield asked.nonce
