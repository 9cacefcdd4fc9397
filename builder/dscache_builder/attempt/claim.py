"""The claim on one key: it expires, is renewed, and carries the checkpoint.

`builds/<key>.json` is never deleted; every write is conditional on the value that was read, and
bodies never repeat. A tombstone (owner "") releases the claim and keeps the checkpoint. See
docs/protocol.md#the-claim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from dscache.errors import PreconditionFailed
from dscache.protocol import layout, manifests, markers, registers
from dscache.protocol.manifests import Checkpoint
from dscache.store.objects import Objects

CLAIM_TTL_S = 60.0
RENEW_S = CLAIM_TTL_S / 4
SPARE_BYTES = 64 << 10  # of the largest checkpoint, so that its claim can be renewed and released


class ClaimLost(Exception):
    """Another builder owns the key now: stop immediately and write nothing more."""


class Claim:
    """A claim that this builder holds until a write of it fails; that write raises ClaimLost."""

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
        cls,
        store: Objects,
        key: str,
        *,
        owner: str,
        unique: Callable[[], str],
        may_follow_dead: Callable[[], bool] = lambda: True,
    ) -> Claim | None:
        """Claim the key; None while another builder holds it.

        `owner` is `<builder id>:<process nonce>`. Only one process at a time has a builder id, so
        a claim of an earlier process with the same id is taken over immediately. The checkpoint is
        kept, and `takeovers` counts the owners that had not released the claim: builders that died,
        as far as anybody can tell. `may_follow_dead` is asked before one more is counted.
        """
        before, if_match = markers.read_checkpoint(store, key)
        if before is None:
            before = Checkpoint(owner="", nonce="", counter=0, expires_at=0.0)
        elif not may_take(before, owner, store.now()):
            return None
        died = before.owner not in ("", owner)
        if died and not may_follow_dead():
            return None
        value = msgspec.structs.replace(before, takeovers=before.takeovers + died)
        claim = cls(store, key, value, "", unique)
        try:
            claim._put(if_match, owner=owner)
        except PreconditionFailed:
            return None
        return claim

    def write(self, **changes: Any) -> None:
        """Write the register with these members changed, which proves and renews the claim."""
        try:
            self._put(self._etag, **changes)
        except PreconditionFailed as error:
            raise ClaimLost(self.key) from error

    def renew_if_due(self) -> None:
        """Renew the claim if a quarter of its time to live has passed."""
        if self.value.expires_at - self._store.now() < CLAIM_TTL_S - RENEW_S:
            self.write()

    def release(self, *, keep: bool) -> None:
        """Write a tombstone; with `keep` the checkpoint stays for the next attempt.

        A builder that releases its claim did not die, so `takeovers` starts again at 0.
        """
        blank = {} if keep else {**NO_UPLOAD, "generation": 0}
        self.write(owner="", takeovers=0, **blank)

    def of_generation(self, generation: int) -> None:
        """Drop the checkpoint of another generation (from the next write on)."""
        if self.value.generation != generation:
            self.value = msgspec.structs.replace(
                self.value, **{**NO_UPLOAD, "generation": generation}
            )

    def forget_upload(self) -> None:
        """Write the checkpoint without its upload; only then may the upload be aborted."""
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
        grows = not changes.keys().isdisjoint(("parts", "seal"))
        body = manifests.encode(value, spare_bytes=SPARE_BYTES if grows else 0)
        self._etag = registers.write(self._store, name, body, if_match=if_match)
        self.value = value


NO_UPLOAD: dict[str, Any] = {
    "upload_id": "",
    "upload_nonce": "",
    "plan_digest": "",
    "parts": [],
    "seal": None,
    "seals": 0,
}


def may_take(claim: Checkpoint, owner: str, now: float) -> bool:
    """Whether `owner` may take the claim: released, expired at `now`, or of the same builder id."""
    same_builder = claim.owner.partition(":")[0] == owner.partition(":")[0]
    return not claim.owner or same_builder or claim.expires_at <= now
