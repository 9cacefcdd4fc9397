"""The claim on one key: it expires, is renewed, and carries the checkpoint (DESIGN §5).

`builds/<key>.json` is never deleted; every write is conditional on the value that was read, and
bodies never repeat. A claim is given back by a tombstone (owner ""), which keeps the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from dscache.errors import PreconditionFailed
from dscache.protocol import layout, manifests, registers
from dscache.protocol.manifests import Checkpoint
from dscache.store.objects import Objects

CLAIM_TTL_S = 60.0
RENEW_S = CLAIM_TTL_S / 4


class ClaimLost(Exception):
    """Somebody else owns the key now: stop at once and touch nothing."""


class Claim:
    """A claim that is ours until a write of it fails. Every write raises ClaimLost when it does."""

    def __init__(
        self, store: Objects, key: str, value: Checkpoint, etag: str, unique: Callable[[], str]
    ) -> None:
        self.key = key
        self.value = value
        self._store = store
        self._etag = etag
        self._unique = unique

    @classmethod
    def take(
        cls, store: Objects, key: str, *, owner: str, unique: Callable[[], str]
    ) -> Claim | None:
        """Claim the key, or None while somebody else holds it.

        `owner` is `<builder id>:<process nonce>`; a builder id belongs to one process at a time, so
        a claim of an earlier process with our id is taken over at once. A taken-over checkpoint is
        kept, and `takeovers` counts those that found an owner who had not released.
        """
        name = layout.claim(key)
        found = store.get(name)
        if found is None:
            before, if_match = Checkpoint(owner="", nonce="", counter=0, expires_at=0.0), None
        else:
            before, if_match = manifests.decode(found.body, Checkpoint, where=name), found.etag
            if not may_take(before, owner, store.now()):
                return None
        died = before.owner not in ("", owner)
        value = msgspec.structs.replace(before, takeovers=before.takeovers + died)
        claim = cls(store, key, value, "", unique)
        try:
            claim._put(if_match, owner=owner)
        except PreconditionFailed:
            return None
        return claim

    def write(self, **changes: Any) -> None:
        """Write the register with these members changed; proves and renews the claim."""
        try:
            self._put(self._etag, **changes)
        except PreconditionFailed as error:
            raise ClaimLost(self.key) from error

    def renew_if_due(self) -> None:
        """Renew when a quarter of the time to live has passed."""
        if self.value.expires_at - self._store.now() < CLAIM_TTL_S - RENEW_S:
            self.write()

    def release(self, *, keep: bool) -> None:
        """Give the key back by a tombstone; with `keep` the checkpoint stays for the next one.

        Whoever releases did not die, so those who died before are forgotten.
        """
        blank = {} if keep else {**NO_UPLOAD, "generation": 0}
        self.write(owner="", takeovers=0, **blank)

    def of_generation(self, generation: int) -> None:
        """Leave a checkpoint of another generation behind (from the next write on)."""
        if self.value.generation != generation:
            self.value = msgspec.structs.replace(
                self.value, **{**NO_UPLOAD, "generation": generation}
            )

    def forget_upload(self) -> None:
        """Write the checkpoint without its upload, so that the upload may be aborted."""
        self.write(**NO_UPLOAD)

    def _put(self, if_match: str | None, **changes: Any) -> None:
        value = msgspec.structs.replace(
            self.value,
            **{
                "nonce": self._unique(),
                "counter": self.value.counter + 1,
                "expires_at": self._store.now() + CLAIM_TTL_S,
                **changes,
            },
        )
        name = layout.claim(self.key)
        body = manifests.encode(value)
        self._etag = registers.write(self._store, name, body, if_match=if_match)
        self.value = value


NO_UPLOAD: dict[str, Any] = {
    "upload_id": "",
    "upload_nonce": "",
    "plan_digest": "",
    "parts": [],
    "seal": None,
}


def may_take(claim: Checkpoint, owner: str, now: float) -> bool:
    """Whether the claim is free: released, expired by the server's clock, or our own id's."""
    same_builder = claim.owner.partition(":")[0] == owner.partition(":")[0]
    return not claim.owner or same_builder or claim.expires_at <= now
