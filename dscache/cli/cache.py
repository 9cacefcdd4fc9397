"""`dscache cache …`: the datasets on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..errors import EXIT_OK, DatasetReplaced, IntegrityError, UsageError
from .common import common

if TYPE_CHECKING:
    from ..cache.audit import Damage
    from ..cache.cache import Cache
    from ..cache.eviction import CachedDataset
    from ..protocol.manifests import Live
    from .common import App


@click.group("cache")
def cache() -> None:
    """Look after the datasets on this machine ($DSCACHE_HOME)."""


@cache.command("ls")
@common
def ls(app: App) -> None:
    """List the datasets, the most recently used first."""
    entries = _cache(app).entries()
    if app.json:
        return app.print_json([_entry_json(entry) for entry in entries])
    if not entries:
        return app.note(f"no datasets in {_cache(app).path}")
    now = time.time()
    for line in _table([_row(entry, now) for entry in entries]):
        click.echo(line)
    from ..units import format_bytes

    total = format_bytes(sum(entry.bytes for entry in entries))
    return app.note(f"{len(entries)} datasets, {total} in {_cache(app).path}")


@cache.command("rm")
@click.argument("keys", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also if pinned or in use by a process.")
@common
def rm(app: App, keys: Sequence[str], force: bool) -> None:
    """Remove datasets from this machine (the store keeps them)."""
    from ..units import format_bytes

    here = _cache(app)
    freed: dict[str, int] = {}
    try:
        for key in keys:
            freed[key] = here.remove(key, force=force)
            app.note(f"removed {key} ({format_bytes(freed[key])})")
    finally:  # also when one of them was refused
        if app.json:
            app.print_json({"removed": freed, "freed_bytes": sum(freed.values())})


@cache.command("prune")
@click.option("--max-size", metavar="SIZE", help="Keep at most so much, for example 200GB.")
@click.option("--keep-days", type=click.FloatRange(min=0), help="Remove what was not used for it.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would go.")
@common
def prune(app: App, max_size: str | None, keep_days: float | None, dry_run: bool) -> None:
    """Remove the least recently used datasets.

    Never those that are pinned, open in a process, or were handed out in the last 24 hours. At
    least one of --max-size and --keep-days is needed, unless cache_limit is set.
    """
    from ..units import format_bytes, parse_bytes

    limit = app.config().cache_limit if max_size is None else parse_bytes(max_size)
    if limit is None and keep_days is None:
        raise UsageError("say what to keep: --max-size 200GB, --keep-days 30, or both")
    pruned = _cache(app).prune(limit, keep_days, dry_run=dry_run)
    if app.json:
        return app.print_json(
            {
                "removed": [_entry_json(entry) for entry in pruned.removed],
                "freed_bytes": pruned.freed_bytes,
                "dry_run": dry_run,
            }
        )
    verb = "would remove" if dry_run else "removed"
    for entry in pruned.removed:
        click.echo(f"{verb} {entry.key} ({format_bytes(entry.bytes)})")
    return app.note(f"{verb} {len(pruned.removed)} datasets, {format_bytes(pruned.freed_bytes)}")


@cache.command("verify")
@click.argument("keys", nargs=-1)
@click.option("--repair", is_flag=True, help="Fetch the damaged files again.")
@common
def verify(app: App, keys: Sequence[str], repair: bool) -> int:
    """Compare files with the digests of the ready marker; all datasets without KEYS.

    Exit code 8 when damage is found and not repaired.
    """
    here = _cache(app)
    chosen = list(keys) or [entry.key for entry in here.entries()]
    found = {key: here.verify(key) for key in chosen}
    damaged = {key: damages for key, damages in found.items() if damages}
    refused = _repair(app, here, damaged) if repair and damaged else {}
    repaired = repair and bool(damaged) and not refused
    if app.json:
        listed = {key: [damage._asdict() for damage in each] for key, each in found.items()}
        app.print_json({"datasets": listed, "repaired": repaired, "refused": refused})
    else:
        _show_damage(found, damaged.keys() - refused.keys() if repair else ())
        for reason in refused.values():
            app.note(reason)
        if damaged and not repair:
            app.note("`dscache cache verify --repair` fetches the damaged files again")
    return IntegrityError.exit_code if damaged and not repaired else EXIT_OK


@cache.command("pin")
@click.argument("keys", nargs=-1, required=True)
@common
def pin(app: App, keys: Sequence[str]) -> None:
    """Keep datasets from being removed."""
    _each(app, keys, "pinned", _cache(app).pin)


@cache.command("unpin")
@click.argument("keys", nargs=-1, required=True)
@common
def unpin(app: App, keys: Sequence[str]) -> None:
    """Let datasets be removed again."""
    _each(app, keys, "unpinned", _cache(app).unpin)


def _cache(app: App) -> Cache:
    from ..cache.cache import Cache

    return Cache(app.config().home)


def _each(app: App, keys: Sequence[str], done: str, act: Callable[[str], None]) -> None:
    ready: list[str] = []
    try:
        for key in keys:
            act(key)
            ready.append(key)
            app.note(f"{done} {key}")
    finally:  # also when one of them was refused
        if app.json:
            app.print_json({done: ready})


def _repair(app: App, here: Cache, damaged: dict[str, list[Damage]]) -> dict[str, str]:
    """Repair what can be; says for each of the others why not."""
    from ..protocol.manifests import Live
    from ..protocol.markers import read_ready
    from ..store.s3 import Store

    store = Store(app.config())
    refused = {}

    def url(live: Live) -> str:
        return store.presign_get(live.zip_key)

    def ready(key: str) -> Live:
        found = read_ready(store, key)
        if not isinstance(found, Live):
            raise DatasetReplaced(f"{key} is not in the store")
        return found

    for key, damages in damaged.items():
        try:
            here.repair(
                key,
                url,
                damaged=damages,
                ready=partial(ready, here.key(key)),
                waiting=lambda: app.note("another process is at it; waiting"),
            )
        except DatasetReplaced:
            refused[key] = (
                f"{key}: the store does not have these files any more, the dataset was retired; "
                f"`dscache cache rm {key}`, then get it again"
            )
        except UsageError as error:
            refused[key] = str(error)
    return refused


def _show_damage(found: dict[str, list[Damage]], repaired: Collection[str]) -> None:
    for key, damages in found.items():
        click.echo(f"{key}: {'damaged' if damages else 'ok'}")
        for damage in damages:
            done = " (repaired)" if key in repaired else ""
            click.echo(f"  {damage.name}: {damage.problem}{done}")


def _entry_json(entry: CachedDataset) -> dict[str, Any]:
    return {**entry._asdict(), "aliases": list(entry.aliases)}


def _row(entry: CachedDataset, now: float) -> tuple[str, ...]:
    from ..units import format_bytes

    marks = {
        "pinned": entry.pinned,
        "in use": entry.in_use,
        "partial": entry.partial,
        "damaged": entry.damaged,
    }
    shown = ", ".join(mark for mark, there in marks.items() if there)
    return (entry.key, format_bytes(entry.bytes), _ago(now - entry.used_at), shown)


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
