"""Read the markers of a key: ready (live, retired or alias), failed, and progress."""

from __future__ import annotations

import logging

from ..errors import IntegrityError
from ..spec import Spec
from ..store.objects import Objects
from . import layout, manifests
from .manifests import Alias, Failure, M, Progress, Ready

log = logging.getLogger(__name__)

MAX_ALIASES = 4


def read_ready(store: Objects, key: str) -> Ready | None:
    """Return the ready marker of a key, or None if there is none.

    Raises IntegrityError for an object that is no ready marker, or that of another key.
    """
    name = layout.ready(key)
    stored = store.get(name)
    if stored is None:
        return None
    ready = manifests.decode_ready(stored.body, where=name)
    expected = ready.key if isinstance(ready, Alias) else key
    if ready.spec.key != expected:
        raise IntegrityError(
            f"{name}: is about {expected}, but its spec has key {ready.spec.key}; "
            "the marker is damaged or in the wrong place"
        )
    return ready


def resolve(store: Objects, spec: Spec) -> tuple[Spec, Ready | None]:
    """Follow aliases; return the spec under which the dataset is built, and its ready marker."""
    for _ in range(MAX_ALIASES):
        ready = read_ready(store, spec.key)
        if not isinstance(ready, Alias):
            return spec, ready
        log.debug("%s is an alias of %s", spec.key, ready.key)
        spec = ready.spec
    raise IntegrityError(f"{layout.ready(spec.key)}: more than {MAX_ALIASES} aliases in a row")


def read_failure(store: Objects, key: str, nonce: str) -> Failure | None:
    """Return the failure that answers the request with this nonce, or None."""
    name = layout.failed(key, nonce)
    stored = store.get(name)
    return None if stored is None else manifests.decode(stored.body, Failure, where=name)


def read_progress(store: Objects, key: str) -> Progress | None:
    """Return the progress of a key's build; None if there is none or it cannot be decoded."""
    return read_known(store, layout.progress(key), Progress)


def read_known(store: Objects, name: str, kind: type[M]) -> M | None:
    """Decode the object `name` as `kind`; None if it does not exist or cannot be decoded."""
    stored = store.get(name)
    return None if stored is None else manifests.decode_known(stored.body, kind, where=name)
