"""`dscache ls`: the datasets in the bucket, and what is being built."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from ..units import format_bytes
from .common import App, common

if TYPE_CHECKING:
    from ..catalog import Status
    from ..client import Client
    from ..protocol.manifests import Live

SHOWN = 50


@click.command("ls")
@click.option("--name", help="Only this dataset_name.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Show the N newest.  [default: {SHOWN}, with --json all]",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all of them.")
@click.option("--keys", is_flag=True, help="Print nothing but the keys of all ready datasets.")
@common
def list_(app: App, name: str | None, limit: int | None, everything: bool, keys: bool) -> None:
    """List the datasets in the bucket, newest first, and what is being built.

    Each line takes a request to the store; --keys takes one for a thousand objects.
    """
    from ..catalog import live_datasets, live_keys, outstanding

    if limit is not None and (everything or keys):
        raise UsageError(f"--limit {limit} and {'--all' if everything else '--keys'}: choose one")
    client = app.client()
    found = live_keys(client.store, name)
    if keys:
        return _print_keys(app, found)
    if limit is None and not (everything or app.json):
        limit = SHOWN
    live = live_datasets(client.store, found, limit)
    waiting = outstanding(client.store, name)
    if app.json:
        return _print_json(app, client, live, waiting, len(found))
    _print(app, client, live, waiting)
    if limit is not None and len(live) == limit < len(found):
        app.note(f"the {limit} newest of {len(found)}; see --all, --limit, --name and --keys")
    return None


def line(live: Live, local: bool) -> str:
    """One dataset on one line."""
    examples = sum(live.splits.values())
    here = "  here" if local else ""
    bad = f"  {len(live.bad_samples)} left out" if live.bad_samples else ""
    return (
        f"{live.spec.key}  {examples:>8} examples  {format_bytes(live.zip_size):>10}  "
        f"{_age(time.time() - live.timings.finished_at)} ago{bad}{here}"
    )


def _print_keys(app: App, keys: list[str]) -> None:
    if app.json:
        app.print_json({"keys": keys})
    elif keys:
        click.echo("\n".join(keys))


def _print_json(
    app: App, client: Client, live: list[Live], waiting: list[Status], total: int
) -> None:
    from ..catalog import raw_changed, raw_revisions, summary

    raw = raw_revisions(client.store, [marker.spec.dataset_name for marker in live])
    datasets = [
        {
            **summary(marker),
            "local": client.cache.has(marker.spec.key),
            "raw_changed": raw_changed(marker, raw),
        }
        for marker in live
    ]
    app.print_json(
        {
            "datasets": datasets,
            "total": total,
            "waiting": [found.as_dict() for found in waiting],
        }
    )


def _print(app: App, client: Client, live: list[Live], waiting: list[Status]) -> None:
    from ..catalog import raw_changed, raw_revisions

    if not live and not waiting:
        app.note(f"nothing in bucket {client.config.bucket!r} yet")
    for found in waiting:
        click.echo(f"{found.key}  {found.state.value}  {found.requests} waiting")
    raw = raw_revisions(client.store, [marker.spec.dataset_name for marker in live])
    for marker in live:
        stale = "  raw data changed since" if raw_changed(marker, raw) else ""
        click.echo(f"{line(marker, client.cache.has(marker.spec.key))}{stale}")


def _age(seconds: float) -> str:
    span = datetime.timedelta(seconds=max(seconds, 0))
    if span.days:
        return f"{span.days} d"
    hours, rest = divmod(span.seconds, 3600)
    return f"{hours} h" if hours else f"{rest // 60} min" if rest >= 60 else f"{rest} s"
