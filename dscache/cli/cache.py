"""`dscache cache …`: manage the datasets on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..errors import EXIT_OK, DatasetReplaced, IntegrityError, UsageError
from .common import common, echo

if TYPE_CHECKING:
    from ..cache.audit import Damage
    from ..cache.cache import Cache
    from ..cache.eviction import CachedDataset
    from ..protocol.manifests import Live
    from .common import App


@click.group("cache")
def cache() -> None:
    """Manage the datasets on this machine, in $DSCACHE_HOME."""


@cache.command("ls")
@common
def ls(app: App) -> None:
    """List the datasets on this machine, most recently used first."""
    entries = _cache(app).entries()
    if app.json:
        return app.print_json([_entry_json(entry) for entry in entries])
    if not entries:
        return app.note(f"no datasets in {_cache(app).path}")
    now = time.time()
    for line in _aligned([_row(entry, now) for entry in entries]):
        echo(line)
    from ..units import format_bytes, format_count

    total = format_bytes(sum(entry.bytes for entry in entries))
    return app.note(f"{format_count(len(entries), 'dataset')}, {total} in {_cache(app).path}")


@cache.command("rm")
@click.argument("keys", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Remove them even if they are pinned or in use.")
@common
def rm(app: App, keys: Sequence[str], force: bool) -> None:
    """Remove datasets from this machine; the store keeps them."""
    from ..units import format_bytes

    local = _cache(app)
    freed: dict[str, int] = {}
    try:
        for key in keys:
            freed[key] = local.remove(key, force=force)
            app.note(f"removed {key} ({format_bytes(freed[key])})")
    finally:  # also when one of them cannot be removed
        if app.json:
            app.print_json({"removed": freed, "freed_bytes": sum(freed.values())})


@cache.command("prune")
@click.option(
    "--max-size",
    metavar="SIZE",
    help="Remove datasets until at most SIZE is left, for example 200GB.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Remove datasets that were not used for DAYS.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be removed.")
@common
def prune(app: App, max_size: str | None, keep_days: float | None, dry_run: bool) -> None:
    """Remove the least recently used datasets.

    Datasets that are pinned, open in a process, damaged, or were handed out in the last 24 hours
    are kept, and so are those in whose folder you keep other files.
    Without --max-size, cache_limit is the limit; if that is not set, --keep-days is required.
    """
    from ..units import format_bytes, format_count, parse_bytes

    limit = app.config().cache_limit if max_size is None else parse_bytes(max_size)
    if limit is None and keep_days is None:
        raise UsageError("nothing says what to keep: use --max-size 200GB, --keep-days 30, or both")
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
        echo(f"{verb} {entry.key} ({format_bytes(entry.bytes)})")
    count = format_count(len(pruned.removed), "dataset")
    return app.note(f"{verb} {count}, {format_bytes(pruned.freed_bytes)}")


@cache.command("verify")
@click.argument("keys", nargs=-1)
@click.option("--repair", is_flag=True, help="Fetch the damaged files again.")
@common
def verify(app: App, keys: Sequence[str], repair: bool) -> int:
    """Check the files of datasets on this machine.

    Compares them with the digests in the ready marker. Without KEYS, checks all datasets. Exits
    with 8 if damage is found and not repaired.
    """
    local = _cache(app)
    checked = list(keys) or [entry.key for entry in local.entries()]
    results = {key: local.verify(key) for key in checked}
    damaged = {key: damages for key, damages in results.items() if damages}
    refused = _repair(app, local, damaged) if repair and damaged else {}
    repaired = repair and bool(damaged) and not refused
    if app.json:
        listed = {key: [damage._asdict() for damage in each] for key, each in results.items()}
        app.print_json({"datasets": listed, "repaired": repaired, "refused": refused})
    else:
        _show_damage(results, damaged.keys() - refused.keys() if repair else ())
        for reason in refused.values():
            app.note(reason)
        if damaged and not repair:
            app.note("`dscache cache verify --repair` fetches the damaged files again")
    return IntegrityError.exit_code if damaged and not repaired else EXIT_OK


@cache.command("pin")
@click.argument("keys", nargs=-1, required=True)
@common
def pin(app: App, keys: Sequence[str]) -> None:
    """Protect datasets from being removed."""
    _each(app, keys, "pinned", _cache(app).pin)


@cache.command("unpin")
@click.argument("keys", nargs=-1, required=True)
@common
def unpin(app: App, keys: Sequence[str]) -> None:
    """Allow datasets to be removed again."""
    _each(app, keys, "unpinned", _cache(app).unpin)


def _cache(app: App) -> Cache:
    from ..cache.cache import Cache

    return Cache(app.config().home)


def _each(app: App, keys: Sequence[str], participle: str, action: Callable[[str], None]) -> None:
    done: list[str] = []
    try:
        for key in keys:
            action(key)
            done.append(key)
            app.note(f"{participle} {key}")
    finally:  # also when one of them cannot be removed
        if app.json:
            app.print_json({participle: done})


def _repair(app: App, local: Cache, damaged: dict[str, list[Damage]]) -> dict[str, str]:
    """Repair the datasets; return the reason for each one that cannot be repaired."""
    from ..protocol.manifests import Live
    from ..protocol.markers import read_ready
    from ..store.s3 import Store

    store = Store(app.config())
    refused = {}

    def url(live: Live) -> str:
        return store.presign_get(live.zip_key)

    def ready(key: str) -> Live:
        marker = read_ready(store, key)
        if not isinstance(marker, Live):
            raise DatasetReplaced(f"{key} is not in the store")
        return marker

    for key, damages in damaged.items():
        try:
            local.repair(
                key,
                url,
                damaged=damages,
                ready=partial(ready, local.key(key)),
                waiting=lambda: app.note("another process is downloading or repairing it; waiting"),
            )
        except DatasetReplaced:
            refused[key] = (
                f"{key}: the store no longer has these files because the dataset was retired; "
                f"run `dscache cache rm {key}`, then get it again"
            )
        except UsageError as error:
            refused[key] = str(error)
    return refused


def _show_damage(results: dict[str, list[Damage]], repaired: Collection[str]) -> None:
    for key, damages in results.items():
        echo(f"{key}: {'damaged' if damages else 'ok'}")
        for damage in damages:
            suffix = " (repaired)" if key in repaired else ""
            echo(f"  {damage.name}: {damage.problem}{suffix}")


def _entry_json(entry: CachedDataset) -> dict[str, Any]:
    lists = {"aliases": list(entry.aliases), "foreign": list(entry.foreign)}
    return {**entry._asdict(), **lists}


def _row(entry: CachedDataset, now: float) -> tuple[str, ...]:
    from ..units import format_age, format_bytes

    flags = {
        "pinned": entry.pinned,
        "in use": entry.in_use,
        "partial": entry.partial,
        "damaged": entry.damaged,
        "holds other files": bool(entry.foreign),
    }
    shown = ", ".join(name for name, is_set in flags.items() if is_set)
    return (entry.key, format_bytes(entry.bytes), format_age(now - entry.used_at), shown)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the rows as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
