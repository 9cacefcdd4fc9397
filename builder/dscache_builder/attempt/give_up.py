"""Answer the requests of a key that no attempt gets past, without building anything."""

from __future__ import annotations

from dscache.errors import IntegrityError
from dscache.protocol.manifests import Alias, Live, Ready
from dscache.terminal import logger

from . import publish, requests
from .claim import Claim
from .context import AttemptContext, Outcome
from .requests import FailureReason

log = logger("dscache_builder")


def give_up(context: AttemptContext, key: str, reason: FailureReason) -> Outcome:
    """Answer the requests of a key: by its ready marker if it has one, otherwise with the failure.

    A claim that cannot be read is nobody's: its owner, if one is left, loses it at its next write.
    As in an attempt, the requests are listed before the marker is read. Raises StoreUnreachable.
    """
    store = context.store
    try:
        claim = Claim.take(store, key, owner=context.owner, unique=context.unique)
        if claim is None:
            return Outcome.HELD
    except IntegrityError as error:
        log.warning("%s; going on without it", error)
        claim = None
    listed = requests.list_requests(store, key)
    ready = _readable_ready(context, key)
    is_answered = isinstance(ready, (Live, Alias))
    if isinstance(ready, Alias):
        requests.forward(store, key, listed, ready.spec)
    if is_answered:
        requests.delete(store, key, listed.nonces, listed.cancels)
    else:
        requests.fail(store, key, listed, reason, builder=context.builder)
    if claim is not None:
        claim.release(keep=True)
    return Outcome.ANSWERED if is_answered else Outcome.FAILED


def _readable_ready(context: AttemptContext, key: str) -> Ready | None:
    try:
        return publish.read_ready(context.store, key).value
    except IntegrityError:
        return None  # clients cannot read it either: the failure tells them
