"""Read the objects of the bucket: the one place that decodes them and believes nothing.

Whoever may write to the bucket may write anything. So every object is read with the limit of its
kind, and its content is compared with its name. What does not fit is an IntegrityError that names
the object; it harms nobody who does not depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import IntegrityError, StoreError
from ..spec import Spec
from ..store.objects import Object, Objects
from ..terminal import logger
from . import layout, manifests
from .manifests import (
    MAX_BYTES,
    Alias,
    Cancel,
    Checkpoint,
    Failure,
    HandlerVersion,
    Live,
    M,
    Progress,
    RawRevision,
    Ready,
    Request,
)

log = logger(__name__)

MAX_ALIASES = 4
_ETAG = re.compile(r"[!-~]{1,256}")
_SPLIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.+-]{0,99}")


def read_ready(store: Objects, key: str, limit_bytes: int = MAX_BYTES[Ready]) -> Ready | None:
    """Return the ready marker of a key, or None if there is none.

    Raises IntegrityError; ObjectTooLarge for one of more than `limit_bytes`.
    """
    return read_ready_register(store, key, limit_bytes)[0]


def read_ready_register(
    store: Objects, key: str, limit_bytes: int = MAX_BYTES[Ready]
) -> tuple[Ready | None, str | None]:
    """Return the ready marker of a key with its etag. Raises IntegrityError."""
    name = layout.ready(key)
    stored = store.get(name, limit_bytes=limit_bytes)
    if stored is None:
        return None, None
    ready = manifests.decode_ready(stored.body, where=name)
    expected = ready.key if isinstance(ready, Alias) else key
    _check_spec(ready.spec, expected, name)
    if isinstance(ready, Live):
        _check_live(ready, key, name)
    return ready, stored.etag


def resolve(store: Objects, spec: Spec) -> tuple[Spec, Ready | None]:
    """Follow aliases; return the spec under which the dataset is built, and its ready marker."""
    for _ in range(MAX_ALIASES):
        ready = read_ready(store, spec.key)
        if not isinstance(ready, Alias):
            return spec, ready
        log.debug("%s is an alias of %s", spec.key, ready.key)
        spec = ready.spec
    raise IntegrityError(f"{layout.ready(spec.key)}: more than {MAX_ALIASES} aliases in a row")


def read_request(store: Objects, key: str, nonce: str) -> Request | None:
    """Return the request, or None if it does not exist. Raises IntegrityError."""
    name = layout.request(key, nonce)
    request = _read(store, name, Request)
    if request is None:
        return None
    _check_nonce(request.nonce, nonce, name)
    _check_spec(request.spec, key, name)
    return request


def read_cancel(store: Objects, key: str, nonce: str) -> Cancel | None:
    """Return the cancel of a request, or None. Raises IntegrityError."""
    name = layout.cancel(key, nonce)
    cancel = _read(store, name, Cancel)
    if cancel is not None:
        _check_nonce(cancel.nonce, nonce, name)
    return cancel


def read_failure(store: Objects, key: str, nonce: str) -> Failure | None:
    """Return the failure that answers the request with this nonce, or None.

    Raises IntegrityError.
    """
    name = layout.failed(key, nonce)
    failure = _read(store, name, Failure)
    if failure is not None:
        _check_nonce(failure.nonce, nonce, name)
    return failure


def read_checkpoint(store: Objects, key: str) -> tuple[Checkpoint | None, str | None]:
    """Return the claim and checkpoint of a key with its etag. Raises IntegrityError."""
    name = layout.claim(key)
    stored = _get(store, name, Checkpoint)
    if stored is None:
        return None, None
    return manifests.decode(stored.body, Checkpoint, where=name), stored.etag


def read_handler_version(
    store: Objects, dataset_name: str, handler_version: str
) -> tuple[HandlerVersion | None, str | None]:
    """Return the lock and options of a handler version with their etag. Raises IntegrityError."""
    name = layout.lock(dataset_name, handler_version)
    stored = _get(store, name, HandlerVersion)
    if stored is None:
        return None, None
    version = manifests.decode(stored.body, HandlerVersion, where=name)
    if (version.dataset_name, version.handler_version) != (dataset_name, handler_version):
        raise IntegrityError(
            f"{name}: is about {version.dataset_name} {version.handler_version}; it is damaged or "
            "in the wrong place"
        )
    return version, stored.etag


def read_progress(store: Objects, key: str) -> Progress | None:
    """Return the progress of a key's build; None if there is none or it cannot be read."""
    return read_known(store, layout.progress(key), Progress)


def read_raw_revision(store: Objects, dataset_name: str) -> RawRevision | None:
    """Return the revision of the raw data; None if there is none or it cannot be read."""
    return read_known(store, layout.raw(dataset_name), RawRevision)


def read_known(store: Objects, name: str, kind: type[M]) -> M | None:
    """Decode an object that decides nothing; None if it does not exist or cannot be read."""
    try:
        return _read(store, name, kind)
    except IntegrityError as error:
        log.debug("%s", error)
        return None


def _read(store: Objects, name: str, kind: type[M]) -> M | None:
    stored = _get(store, name, kind)
    return None if stored is None else manifests.decode(stored.body, kind, where=name)


def _get(store: Objects, name: str, kind: object) -> Object | None:
    """GET an object. One that the store has but does not hand out (encrypted with a key of its
    writer's, say) is as unreadable as one with a damaged content."""
    try:
        return store.get(name, limit_bytes=MAX_BYTES[kind])
    except StoreError as error:
        if type(error) is StoreError:  # no subclass: those are about the store or our rights
            raise IntegrityError(f"{name}: the store does not hand it out: {error}") from error
        raise


def _check_spec(spec: Spec, key: str, name: str) -> None:
    if spec.key != key:
        raise IntegrityError(
            f"{name}: is about {key}, but its spec has key {spec.key}; "
            "it is damaged or in the wrong place"
        )


def _check_live(live: Live, key: str, name: str) -> None:
    """Raise IntegrityError unless the marker can describe a zip of this key."""
    problem = next(_problems(live, key), None)
    if problem is not None:
        raise IntegrityError(
            f"{name}: {problem}; the marker is damaged: have the dataset retired and built again"
        )


def _problems(live: Live, key: str) -> Iterator[str]:
    if live.generation < 0:
        yield f"generation {live.generation}"
    elif live.zip_key != layout.archive(key, live.generation):
        yield f"names the zip {live.zip_key!r}"
    if not _ETAG.fullmatch(live.zip_etag):
        yield f"the zip's etag {live.zip_etag!r} cannot be one"
    if not live.members:
        yield "its member table is empty"
    names, end = set[str](), 0
    for member in live.members:
        folded = member.name.casefold()  # two names may be one file on the reader's disk
        if not member.name.isprintable() or folded in names:
            yield f"member {member.name!r} occurs twice, or has control characters"
        if member.offset < end or member.size < 0 or member.records < 0:
            yield f"member {member.name!r} overlaps another, or has a negative size or number"
        if member.split and not _SPLIT.fullmatch(member.split):
            yield f"member {member.name!r} is of the split {member.split!r}"
        names.add(folded)
        end = member.offset + member.size
    if end > live.zip_size:
        yield f"its members end at byte {end} of {live.zip_size}"


def _check_nonce(found: str, expected: str, name: str) -> None:
    if found != expected:
        raise IntegrityError(f"{name}: its content has the nonce {found[:64]!r}")
