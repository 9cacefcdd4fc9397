"""`dscache-builder verify`: build one shard of a stored dataset again, and compare."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from dscache.errors import IntegrityError, NotCached, UsageError
from dscache.protocol import markers
from dscache.protocol.manifests import BadSample, Live, Member
from dscache.spec import load_spec, split_key
from dscache.store.objects import Objects
from dscache.store.s3 import Store
from dscache.terminal import printable

from .. import config as configuration
from ..engine import Engine, Session
from ..environments.environment import Environments
from ..failure import HandlerFailure
from ..handler_engine import HandlerEngine
from ..hosting.messages import PlanSummary, ShardBuilt

RANDOM = "random"
RAW_DATA_CHANGED = 3  # exit code: the shards cannot be compared


@dataclass(frozen=True)
class Comparison:
    """The result. `same` is None if the shards cannot be compared; `problem` explains why."""

    key: str
    shard: str
    index: int
    stored: str
    built: str
    same: bool | None
    problem: str = ""

    @property
    def exit_code(self) -> int:
        """0 the same, 8 different, 3 not comparable."""
        if self.same is None:
            return RAW_DATA_CHANGED
        return 0 if self.same else IntegrityError.exit_code


@click.command("verify")
@click.argument("dataset", metavar="KEY|CONFIG")
@click.option(
    "--rebuild-shard",
    "which",
    metavar="N|random",
    required=True,
    help="Which shard, counted from 0 over all splits, as `dscache show --json` lists them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
@click.pass_context
def verify_command(context: click.Context, dataset: str, which: str, as_json: bool) -> None:
    """Build one shard of a stored dataset again, in its locked environment, and compare.

    This detects handlers that are not repeatable. It writes only scratch space, and a builder may
    run at the same time. Exits with 0 if the bytes are the same, 8 if they differ, and 3 if the raw
    data has changed, so that they cannot be compared.
    """
    config = configuration.load(context.find_root().params["path"])
    store = Store(config.store_config(os.environ))
    key, live = find_live(store, dataset)
    index = pick(which, live.shards, secrets.randbelow)
    config.scratch.mkdir(parents=True, exist_ok=True)
    environments = Environments(
        config.state / "environments", find_links=config.find_links, index_url=config.index_url
    )
    engine = HandlerEngine(config, store, environments)
    if not as_json:
        click.echo(printable(f"rebuilding {live.shards[index].name} (shard {index})"), err=True)
    result = rebuild(engine, key, live, index)
    text = json.dumps(asdict(result), indent=2) if as_json else result_text(result)
    click.echo(printable(text))
    context.exit(result.exit_code)


def find_live(store: Objects, dataset: str) -> tuple[str, Live]:
    """Key and ready marker of a key or a config file. Follows aliases. Raises NotCached."""
    key = dataset if split_key(dataset) else load_spec(Path(dataset)).key
    ready = markers.read_ready(store, key)
    if ready is not None and not isinstance(ready, Live):
        _, ready = markers.resolve(store, ready.spec)
    if not isinstance(ready, Live):
        raise NotCached(
            f"{key} is not ready in the bucket; `dscache ls` lists the datasets that are"
        )
    return ready.spec.key, ready


def pick(which: str, shards: list[Member], below: Callable[[int], int]) -> int:
    """The index of the shard: `which`, or a random one. `below(n)` returns a number below n.

    Raises UsageError, or NotCached if there are no shards.
    """
    if not shards:
        raise NotCached("the dataset has no shards that could be rebuilt")
    if which == RANDOM:
        return below(len(shards))
    if not which.isdecimal() or int(which) >= len(shards):
        raise UsageError(
            f"--rebuild-shard {which}: not a shard of this dataset; "
            f"give 0 to {len(shards) - 1}, or `{RANDOM}`"
        )
    return int(which)


def rebuild(engine: Engine, key: str, live: Live, index: int) -> Comparison:
    """Build shard `index` of a live dataset in scratch space and compare it with the marker.

    Raises HandlerFailure if the shard cannot be built.
    """
    with engine.open(live.spec, lambda: None) as session:
        plan = session.plan()
        built = _build(session, index)
        return compare(key, live, index, plan, built, lock_digest=session.lock_digest)


def _build(session: Session, index: int) -> ShardBuilt | None:
    """Build one shard; a plain handler writes all of its files, and the others are dropped."""
    rebuilt = None
    for event in session.build([index], lambda: True):
        if isinstance(event, ShardBuilt):
            event.path.unlink(missing_ok=True)
            if event.index == index:
                rebuilt = event
    return rebuilt


def compare(
    key: str,
    live: Live,
    index: int,
    plan: PlanSummary,
    built: ShardBuilt | None,
    *,
    lock_digest: str,
) -> Comparison:
    """Compare the two digests, and explain a difference. Pure.

    Raises HandlerFailure if the shard was built from another lock than the dataset.
    """
    stored = live.shards[index]
    if live.lock_digest != lock_digest:
        raise HandlerFailure(
            "environment",
            f"{key} was built from lock {live.lock_digest[:16]}…, but the bucket's lock of "
            f"handler version {live.spec.handler_version} is now {lock_digest[:16]}…; comparing "
            "them would prove nothing about the handler",
        )
    digest = built.digest if built is not None and built.name == stored.name else ""
    same = digest == stored.digest
    result: dict[str, Any] = {
        "key": key, "shard": stored.name, "index": index,
        "stored": stored.digest, "built": digest,
    }  # fmt: skip
    if same:
        return Comparison(**result, same=True)
    if plan.raw_revision != live.raw_revision:
        problem = (
            "the raw data has changed since the dataset was built (revision "
            f"{live.raw_revision or 'unknown'} then, {plan.raw_revision or 'unknown'} now), so a "
            "difference proves nothing about the handler"
        )
        return Comparison(**result, same=None, problem=problem)
    return Comparison(**result, same=False, problem=_difference(live, stored, built))


def _difference(live: Live, stored: Member, built: ShardBuilt | None) -> str:
    if built is None or built.name != stored.name:
        name = built.name if built is not None else "no such shard"
        return (
            f"the same code and raw data now give other shards ({name} instead of "
            f"{stored.name}): the handler lists its samples differently each time"
        )
    left_out = "" if live.more_bad_samples else _other_samples_left_out(live.bad_samples, built.bad)
    if left_out:
        return left_out
    diff = "the same number of records" if built.records == stored.records else (
        f"{built.records} records instead of {stored.records}"
    )  # fmt: skip
    killed = [bad.sample for bad in live.bad_samples if not bad.repeatable]
    if killed and built.records > stored.records:
        return (
            f"the rebuilt shard has other bytes ({diff}), as the ready marker warns (`repeatable` "
            f"is false): {len(killed)} samples were left out because their worker was killed or "
            f"ran over the time limit (the first: {killed[0]}), and another build may keep them"
        )
    if not live.repeatable and not killed:
        return (
            f"the rebuilt shard has other bytes ({diff}), as the ready marker warns (`repeatable` "
            "is false): a plain handler gets no `rng`, so its bytes may differ each time"
        )
    return (
        f"the shard rebuilt from the same code and raw data has other bytes ({diff}, {built.size} "
        f"bytes instead of {stored.size}): the handler is not repeatable; usually it draws random "
        "numbers from a source other than `rng`, or depends on the time, the order of a set, or "
        "several threads"
    )


def _other_samples_left_out(stored: list[BadSample], built: list[BadSample]) -> str:
    """Explain that samples are bad now that were not bad before; "" if there are none."""
    before = {bad.sample for bad in stored}
    new = [bad.sample for bad in built if bad.sample not in before]
    if not new:
        return ""
    return (
        f"{len(new)} samples failed now that did not fail before (the first: {new[0]}), so other "
        "records are missing; examine them with `dscache-builder try`"
    )


def result_text(result: Comparison) -> str:
    """The result as text."""
    where = f"{result.key}: {result.shard} (shard {result.index})"
    if result.same:
        return f"{where}: the same bytes, BLAKE3 {result.stored}"
    head = "cannot be compared" if result.same is None else "differs"
    digests = f"  stored  BLAKE3 {result.stored}\n  built   BLAKE3 {result.built or 'none'}"
    return f"{where}: {head}: {result.problem}\n{digests}"
