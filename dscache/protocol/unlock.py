"""Take back the lock of a handler version, see docs/protocol.md#unlock."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..errors import PreconditionFailed, UsageError
from ..store.objects import Objects
from . import layout, manifests, markers, registers
from .manifests import Alias, HandlerVersion, Live, Lock, Unlocked

SHOWN = 3


class VersionInUse(UsageError):
    """Something in the bucket was made, or is being made, with the lock of the version."""


def unlock(store: Objects, dataset_name: str, handler_version: str, *, by: str, nonce: str) -> Lock:
    """Take back the lock, so that the next builder resolves the version anew; return it.

    `by` says who did it, for people. Raises VersionInUse while a dataset hangs on the lock, and
    UsageError if there is no lock, or another process has changed it meanwhile.
    """
    name = layout.lock(dataset_name, handler_version)
    version, etag = markers.read_handler_version(store, dataset_name, handler_version)
    if version is None or version.lock is None:
        raise UsageError(f"{name}: there is no lock; the next build writes one")
    _refuse_if_in_use(store, dataset_name, handler_version)
    unlocked = HandlerVersion(
        dataset_name=dataset_name,
        handler_version=handler_version,
        unlocked=Unlocked(by=by, at=store.now(), source=version.lock.source, nonce=nonce),
    )
    etag = _write(store, name, unlocked, etag)
    try:
        _refuse_if_in_use(store, dataset_name, handler_version)
    except VersionInUse:  # a builder has read the lock between the check and the write
        _write(store, name, version, etag)
        raise
    return version.lock


def _write(store: Objects, name: str, version: HandlerVersion, etag: str | None) -> str:
    try:
        return registers.write(store, name, manifests.encode(version), if_match=etag)
    except PreconditionFailed as error:
        raise UsageError(f"{name}: another process has changed it meanwhile; try again") from error


def _refuse_if_in_use(store: Objects, dataset_name: str, handler_version: str) -> None:
    first = list(islice(_in_use(store, dataset_name, handler_version), SHOWN + 1))
    if first:
        more = "; …" if len(first) > SHOWN else ""
        raise VersionInUse(
            f"{layout.lock(dataset_name, handler_version)} is in use: "
            f"{'; '.join(first[:SHOWN])}{more}"
        )


def _in_use(store: Objects, dataset_name: str, handler_version: str) -> Iterator[str]:
    """What hangs on the lock, and what to do about it.

    Claims come first: a key that is published between the two listings is in the second one.
    """
    for entry in store.entries(layout.claims_of_version(dataset_name, handler_version)):
        key = layout.parse_claim(entry.name)
        claim = markers.read_checkpoint(store, key)[0] if key else None
        if claim and claim.owner:
            yield f"{key} is being built (wait for it, or cancel it with `dscache cancel`)"
        elif claim and claim.seal:
            yield f"{key} is built, but not published yet (request it, and wait for it)"
    for entry in store.entries(layout.objects_of_version(dataset_name, handler_version)):
        key = layout.parse_ready(entry.name)
        ready = markers.read_ready(store, key) if key else None
        if isinstance(ready, Live):
            yield f"{key} is ready (have it retired first, or release another version)"
        elif isinstance(ready, Alias):
            yield f"{key} is an alias of {ready.key}, for ever (release another version)"
