"""Rules of docs/protocol.md, each with a mutant: a small change of the real code that breaks it.

`test_mutants` expects that stories tell of every one of them. A mutant is a replacement in the
source of one function, so a change of that function that it no longer fits is noticed. Rules that
need rarer stories have tests of their own in `test_the_simulation` and `test_attempts`.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest

from dscache.protocol import layout, registers, retire, wait
from dscache_builder.attempt import claim, heartbeat, parts, publish, requests
from dscache_builder.attempt.attempt import Attempt
from dscache_builder.attempt.claim import Claim
from dscache_builder.attempt.requests import RequestSet
from simulation.stories import Story, anything, slow


@dataclass(frozen=True)
class Mutant:
    """In the source of `owner.name`, `old` becomes `new`; `rule` names what that breaks."""

    rule: str
    owner: Any
    name: str
    old: str
    new: str
    story: Story = anything

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give the function the changed code, wherever it was imported."""
        found = inspect.getattr_static(self.owner, self.name)
        function: Any = found.fget if isinstance(found, property) else found
        source = textwrap.dedent(inspect.getsource(function)).removeprefix("@property\n")
        assert source.count(self.old) == 1, f"{self.rule}: {source.count(self.old)} × {self.old!r}"
        flags = __future__.annotations.compiler_flag
        code = compile(source.replace(self.old, self.new), f"<{self.rule}>", "exec", flags)
        planted: dict[str, Any] = {}
        exec(code, function.__globals__, planted)
        monkeypatch.setattr(function, "__code__", planted[self.name].__code__)


MUTANTS = [
    Mutant(
        "only-listed-deleted", Attempt, "_answer",
        "requests.delete(self.store, self.key, listed.nonces",
        "requests.delete(self.store, self.key, "
        "requests.list_requests(self.store, self.key).nonces",
    ),
    Mutant(
        "failure-for-listed", Attempt, "_fail",
        "self.claim.write()",
        "self.claim.write(); outstanding = requests.list_requests(self.store, self.key)",
    ),
    Mutant(
        "failure-first", Attempt, "_fail",
        "self.claim.write()",
        "requests.delete(self.store, self.key, outstanding.nonces); self.claim.write()",
    ),
    Mutant(
        "failure-with-nonce", requests, "put_failures",
        "layout.failed(key, nonce)", 'layout.failed(key, "the-only-one")',
    ),
    Mutant(
        "ask-again", wait, "look",
        "return request_again(outstanding.spec)", "return outstanding",
    ),
    Mutant(
        "ready-is-a-register", publish, "_put_ready",
        "if_match=before.etag", "if_match=read_ready(store, key).etag",
    ),
    Mutant(
        "zip-of-generation", layout, "archive",
        "if generation == 0", "if generation >= 0",
    ),
    Mutant(
        "retired-before-deleted", retire, "retire",
        "    retired = Retired(", "    store.delete(live.zip_key)\n    retired = Retired(",
    ),
    Mutant(
        "all-must-cancel", RequestSet, "all_cancelled",
        "bool(self.nonces) and self.nonces <= self.cancels",
        "bool(self.nonces & self.cancels)",
    ),
    Mutant(
        "forget-before-abort", Attempt, "_cancel",
        "    self.claim.forget_upload()\n    if upload_id:",
        "    if upload_id:",
    ),
    Mutant(
        "read-after-412", registers, "write",
        "if stored is not None and stored.body == body", "if False",
    ),
    Mutant(
        "read-after-412-once", registers, "create_once",
        "if stored is not None and stored.body != body:", "if True:",
    ),
    Mutant(
        "claim-until-it-expires", claim, "may_take",
        "claim.expires_at <= now", "claim.expires_at <= now + 10",
    ),
    Mutant(
        "claim-is-conditional", Claim, "write",
        "self._put(self._etag, **changes)",
        "self._put(markers.read_checkpoint(self._store, self.key)[1], **changes)",
    ),
    Mutant(
        "claim-renewed", heartbeat.Heartbeat, "__call__",
        "self._claim.renew_if_due()", "pass", slow,
    ),
    Mutant(
        "checkpoint-of-its-generation", Claim, "of_generation",
        "if self.value.generation != generation:", "if False:",
    ),
    Mutant(
        "parts-are-compared", parts, "keep_prefix",
        "if part is None or (part.size, part.etag) != (record.size, record.etag)",
        "if part is None",
    ),
    Mutant(
        "parts-are-a-prefix", parts, "keep_prefix",
        "            break\n", "            continue\n",
    ),
    Mutant(
        "alias-is-forwarded", Attempt, "_answer",
        "if isinstance(ready.value, Alias):", "if False:",
    ),
    Mutant(
        "same-nonce-forwarded", requests, "forward",
        "layout.request(resolved.key, nonce)", 'layout.request(resolved.key, nonce + "-x")',
    ),
]  # fmt: skip
