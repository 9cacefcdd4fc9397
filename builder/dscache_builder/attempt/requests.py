"""The requests of one key, and how they are answered and deleted (docs/protocol.md#answers).

A request is deleted only after an answer that its client can find: a live ready marker, an alias
under which the same nonce was requested, or a failure with its nonce.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from dscache.errors import IntegrityError, PreconditionFailed
from dscache.protocol import layout, manifests, markers, registers
from dscache.protocol.manifests import Cancel, Failure, FailureKind
from dscache.spec import Spec
from dscache.store.objects import Objects
from dscache.terminal import logger

from ..foreign import LOG_BYTES, MESSAGE_BYTES, SAMPLE_BYTES, TRACEBACK_BYTES, fit

log = logger("dscache_builder")

LOG_TAIL_CHARS = 16_000


@dataclass(frozen=True)
class RequestSet:
    """The nonces of a key's requests, and of those that are cancelled."""

    nonces: frozenset[str]
    cancels: frozenset[str]

    @property
    def all_cancelled(self) -> bool:
        """Whether there are requests and every one of them is cancelled."""
        return bool(self.nonces) and self.nonces <= self.cancels


@dataclass(frozen=True)
class FailureReason:
    """Why a request fails; see `dscache.protocol.manifests.Failure`."""

    kind: FailureKind
    message: str
    sample: str = ""
    traceback: str = ""
    log_tail: str = ""


def list_requests(store: Objects, key: str) -> RequestSet:
    """LIST the requests and cancels of a key."""
    nonces, cancels = set(), set()
    for entry in store.entries(layout.requests_of(key)):
        if request := layout.parse_request(entry.name):
            nonces.add(request.nonce)
        elif cancel := layout.parse_cancel(entry.name):
            cancels.add(cancel.nonce)
    return RequestSet(frozenset(nonces), frozenset(cancels))


def list_failures(store: Objects, key: str) -> frozenset[str]:
    """LIST the nonces that have a failure."""
    names = (entry.name for entry in store.entries(layout.failures_of(key)))
    return frozenset(failure.nonce for failure in map(layout.parse_failure, names) if failure)


def delete(store: Objects, key: str, nonces: Iterable[str], cancels: Iterable[str] = ()) -> None:
    """DELETE answered requests and their cancels."""
    for nonce in sorted(nonces):
        store.delete(layout.request(key, nonce))
    for nonce in sorted(cancels):
        store.delete(layout.cancel(key, nonce))


def put_failures(
    store: Objects, key: str, nonces: Iterable[str], reason: FailureReason, *, builder: str
) -> None:
    """PUT a failure for each of these nonces. One that already exists stays as it is."""
    for nonce in sorted(nonces):
        failure = Failure(
            kind=reason.kind,
            message=fit(reason.message, MESSAGE_BYTES),
            nonce=nonce,
            failed_at=store.now(),
            builder=builder,
            sample=fit(reason.sample, SAMPLE_BYTES),
            traceback=fit(reason.traceback, TRACEBACK_BYTES),
            log_tail=fit(reason.log_tail[-LOG_TAIL_CHARS:], LOG_BYTES),
        )
        try:
            store.put(layout.failed(key, nonce), manifests.encode(failure), if_none_match=True)
        except PreconditionFailed:
            continue


def fail(
    store: Objects, key: str, listed: RequestSet, reason: FailureReason, *, builder: str
) -> None:
    """Answer these requests with a failure: first the failures, then the requests are deleted."""
    log.error("%s: %s: %s", key, reason.kind, reason.message)
    put_failures(store, key, listed.nonces, reason, builder=builder)
    delete(store, key, listed.nonces, listed.cancels)


def forward(store: Objects, key: str, listed: RequestSet, resolved: Spec) -> None:
    """Request the resolved spec under the same nonces, for the clients that requested `key`.

    Cancels are forwarded as well.
    """
    for nonce in sorted(listed.nonces):
        try:
            request = markers.read_request(store, key, nonce)
        except IntegrityError:
            continue  # the alias answers it
        if request is None:
            continue
        forwarded = msgspec.structs.replace(request, spec=resolved)
        name = layout.request(resolved.key, nonce)
        with suppress(PreconditionFailed):  # forwarded before, with another time or priority
            registers.create_once(store, name, manifests.encode(forwarded))
        if nonce in listed.cancels:
            wish = Cancel(nonce=nonce, client=request.client, cancelled_at=store.now())
            store.put(layout.cancel(resolved.key, nonce), manifests.encode(wish))


def cancelled_by(store: Objects, key: str, nonces: Iterable[str]) -> str:
    """The names of the clients that cancelled, for the failure's message."""
    names = set()
    for nonce in nonces:
        with suppress(IntegrityError):  # the client's name is all that is missing then
            cancel = markers.read_cancel(store, key, nonce)
            if cancel is not None:
                names.add(cancel.client)
    return ", ".join(sorted(names)) or "its requester"
