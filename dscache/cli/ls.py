"""`dscache ls`: the datasets in the bucket, and what is being built."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..units import format_age, format_bytes
from .common import App, common, echo

if TYPE_CHECKING:
    from ..catalog import Status
    from ..client import Client

SHOWN = 50


@click.command("ls")
@click.option("--name", metavar="NAME", help="List only the datasets with this dataset_name.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Show only the N newest.  [default: {SHOWN}; with --json, all]",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all datasets.")
@click.option("--keys", is_flag=True, help="Print only the keys of the ready datasets; fast.")
@common
def list_(app: App, name: str | None, limit: int | None, everything: bool, keys: bool) -> None:
    """List the datasets in the bucket.

    Shows the ready datasets, newest first, and what is being built. Each dataset shown costs one
    request to the store; --keys costs one per thousand objects.
    """
    from ..catalog import live_datasets, live_keys, outstanding

    if limit is not None and (everything or keys):
        raise UsageError(f"--limit {limit} and {'--all' if everything else '--keys'}: choose one")
    client = app.client()
    ready_keys = live_keys(client.store, name)
    if keys:
        return _print_keys(app, ready_keys)
    if limit is None and not (everything or app.json):
        limit = SHOWN
    live = live_datasets(client.store, ready_keys, limit)
    unfinished = outstanding(client.store, name)
    if app.json:
        return _print_json(app, client, live, unfinished, len(ready_keys))
    _print(app, client, live, unfinished)
    if limit is not None and len(live) == limit < len(ready_keys):
        app.note(f"the {limit} newest of {len(ready_keys)}; see --all, --limit, --name and --keys")
    return None


def line(dataset: Mapping[str, Any], local: bool) -> str:
    """Return the line that describes one dataset, given its summary."""
    cached = "  here" if local else ""
    bad = f"  {dataset['bad_samples']} left out" if dataset["bad_samples"] else ""
    return (
        f"{dataset['key']}  {dataset['examples']:>8} examples  "
        f"{format_bytes(dataset['bytes']):>10}  "
        f"{format_age(time.time() - dataset['built_at'])}{bad}{cached}"
    )


def _print_keys(app: App, keys: list[str]) -> None:
    if app.json:
        app.print_json({"keys": keys})
    elif keys:
        echo("\n".join(keys))


def _print_json(
    app: App, client: Client, live: list[dict[str, Any]], unfinished: list[Status], total: int
) -> None:
    from ..catalog import raw_changed, raw_revisions

    raw = raw_revisions(client.store, [dataset["dataset_name"] for dataset in live])
    datasets = [
        {
            **dataset,
            "local": client.cache.has(dataset["key"]),
            "raw_changed": raw_changed(dataset, raw),
        }
        for dataset in live
    ]
    app.print_json(
        {
            "datasets": datasets,
            "total": total,
            "waiting": [status.as_dict() for status in unfinished],
        }
    )


def _print(app: App, client: Client, live: list[dict[str, Any]], unfinished: list[Status]) -> None:
    from ..catalog import raw_changed, raw_revisions

    if not live and not unfinished:
        app.note(f"no datasets in bucket {client.config.bucket!r} yet")
    for status in unfinished:
        echo(f"{status.key}  {status.state.value}  {status.requests} waiting")
    raw = raw_revisions(client.store, [dataset["dataset_name"] for dataset in live])
    for dataset in live:
        stale = "  raw data has changed" if raw_changed(dataset, raw) else ""
        echo(f"{line(dataset, client.cache.has(dataset['key']))}{stale}")
