"""The requests of one key, and how they are answered and deleted (DESIGN §5).

A request is deleted only after an answer that its client can find: a live ready marker, an alias
under which the same nonce was requested, or a failure that carries its nonce.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from dscache.errors import IntegrityError, PreconditionFailed, SpecError
from dscache.protocol import layout, manifests, registers
from dscache.protocol.manifests import Cancel, Failure, FailureKind, Request
from dscache.spec import Spec, from_members
from dscache.store.objects import Objects

LOG_TAIL_CHARS = 16_000


@dataclass(frozen=True)
class RequestSet:
    """Nonces of the outstanding requests of a key, and of those that are cancelled."""

    nonces: frozenset[str]
    cancels: frozenset[str]

    @property
    def all_cancelled(self) -> bool:
        """Whether somebody waits and everybody who does wishes to stop."""
        return bool(self.nonces) and self.nonces <= self.cancels


@dataclass(frozen=True)
class FailureReason:
    """Why a request is not built. `kind` is the failure class."""

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
    """LIST the nonces that a failure answers already."""
    found = (layout.parse_failure(entry.name) for entry in store.entries(layout.failures_of(key)))
    return frozenset(failure.nonce for failure in found if failure)


def delete(store: Objects, key: str, nonces: Iterable[str], cancels: Iterable[str] = ()) -> None:
    """DELETE answered requests, and cancels that have lost their meaning."""
    for nonce in sorted(nonces):
        store.delete(layout.request(key, nonce))
    for nonce in sorted(cancels):
        store.delete(layout.cancel(key, nonce))


def read_request(store: Objects, key: str, nonce: str) -> Request | None:
    """The request if it is still there. Raises SpecError when its content is not for this key."""
    name = layout.request(key, nonce)
    found = store.get(name)
    if found is None:
        return None
    try:
        request = manifests.decode(found.body, Request, where=name)
    except IntegrityError as error:
        raise SpecError(str(error)) from None
    spec = from_members(msgspec.to_builtins(request.spec), where=name)
    if spec.key != key or request.nonce != nonce:
        raise SpecError(
            f"{name}: its name is not that of its content ({spec.key}.{request.nonce}); "
            "name a request by the key of the spec in it"
        )
    return msgspec.structs.replace(request, spec=spec)


def put_failures(
    store: Objects, key: str, nonces: Iterable[str], reason: FailureReason, *, builder: str
) -> None:
    """PUT a failure for each of these nonces, and no other. One that is there already stands."""
    for nonce in sorted(nonces):
        failure = Failure(
            kind=reason.kind,
            message=reason.message,
            nonce=nonce,
            failed_at=store.now(),
            builder=builder,
            sample=reason.sample,
            traceback=reason.traceback,
            log_tail=reason.log_tail[-LOG_TAIL_CHARS:],
        )
        try:
            store.put(layout.failed(key, nonce), manifests.encode(failure), if_none_match=True)
        except PreconditionFailed:
            continue


def forward(store: Objects, key: str, wanted: RequestSet, resolved: Spec) -> None:
    """Ask for the resolved spec under the same nonces, on behalf of whoever asked for `key`; and
    cancel there what was cancelled here."""
    for nonce in sorted(wanted.nonces):
        try:
            request = read_request(store, key, nonce)
        except SpecError:
            continue  # the alias answers it as well as anything could
        if request is None:
            continue
        moved = msgspec.structs.replace(request, spec=resolved)
        name = layout.request(resolved.key, nonce)
        with suppress(PreconditionFailed):  # forwarded before, with another time or priority in it
            registers.write(store, name, manifests.encode(moved), if_match=None)
        cancel = store.get(layout.cancel(key, nonce)) if nonce in wanted.cancels else None
        if cancel is not None:
            store.put(layout.cancel(resolved.key, nonce), cancel.body)


def cancelled_by(store: Objects, key: str, nonces: Iterable[str]) -> str:
    """Names of the clients who cancelled, for the message of the failure."""
    names = set()
    for nonce in nonces:
        name = layout.cancel(key, nonce)
        found = store.get(name)
        if found is not None:
            with suppress(IntegrityError):  # its name says all that matters
                names.add(manifests.decode(found.body, Cancel, where=name).client)
    return ", ".join(sorted(names)) or "its requester"
