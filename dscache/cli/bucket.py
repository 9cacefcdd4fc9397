"""`dscache status`, `show`, `logs`, `preview`, `url` and `cancel`: what is in the bucket."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..canonical import split_key
from ..errors import NotCached, UsageError
from ..units import format_bytes
from .common import App, common
from .ls import line

if TYPE_CHECKING:
    from ..catalog import Status
    from ..client import Client
    from ..protocol.manifests import Failure

FOLLOW_S = 1.0  # between two looks at the bucket
LAST_LOG_S = 3.0


@click.command()
@click.argument("config")
@common
def status(app: App, config: str) -> None:
    """Print the state of one dataset: ready, building, requested, failed or absent.

    CONFIG is a JSON file, a key, or a topic.
    """
    found = status_of(app.client(), config)
    if app.json:
        app.print_json(found.as_dict())
        return
    click.echo(f"{found.key}  {found.state.value}")
    if found.asked != found.key:
        click.echo(f"  asked for as {found.asked}")
    if found.requests:
        click.echo(f"  {found.requests} waiting")
    if found.progress:
        progress = found.progress
        click.echo(f"  {progress.phase}: {progress.done} of {progress.total} examples")
    if found.failure:
        click.echo(f"  {found.failure.kind}: {found.failure.message}")


@click.command()
@click.argument("config")
@common
def show(app: App, config: str) -> None:
    """Print what is known of one ready dataset: its config, splits, features, bad samples."""
    import json

    from ..catalog import summary
    from ..protocol.manifests import Live

    found = status_of(app.client(), config)
    if not isinstance(found.ready, Live):
        raise NotCached(f"{found.key} is {found.state.value}; see `dscache status`")
    live = found.ready
    document = {
        **summary(live),
        "features": live.features,
        "bad_samples": [{"sample": bad.sample, "error": bad.error} for bad in live.bad_samples],
        "members": [member.name for member in live.members],
        "lock_digest": live.lock_digest,
    }
    if app.json:
        app.print_json(document)
        return
    click.echo(line(live, local=False).rstrip())
    click.echo(f"  config     {json.dumps(live.spec.dataset_config, sort_keys=True)}")
    splits = ", ".join(f"{split} {count}" for split, count in live.splits.items())
    click.echo(f"  splits     {splits} examples in {len(live.shards)} shards")
    click.echo(f"  built      in {live.timings.build_s:g} s by {live.builder or 'unknown'}")
    click.echo(f"  object     {live.zip_key} ({format_bytes(live.zip_size)})")
    for bad in live.bad_samples:
        click.echo(f"  left out   {bad.sample}: {bad.error}")


@click.command()
@click.argument("config")
@click.option("-f", "--follow", is_flag=True, help="Go on until the build has ended.")
@common
def logs(app: App, config: str, follow: bool) -> None:
    """Print the log of the newest build of a dataset, or why it failed.

    While it is being built, --follow prints what is added; the builder sends its log every few
    seconds.
    """
    from ..protocol import layout
    from ..protocol.buildlog import text_of

    if app.json and follow:
        raise UsageError("--json prints one document, --follow goes on: leave one of them out")
    client = app.client()
    if app.json:
        app.print_json(_log_document(client, config))
        return
    found = _followed(app, client, config) if follow else None
    if found is not None:
        _print_failure(found.failure, log=False)
        return
    found = status_of(client, config)
    stored = client.store.get(layout.log(found.key))
    if stored is not None and found.failure is None:
        click.echo(text_of(stored.body), nl=False)
        return
    if found.failure is None:
        raise NotCached(f"{found.key} has no log: it is {found.state.value}")
    _print_failure(found.failure, log=True)


def _log_document(client: Client, config: str) -> dict[str, Any]:
    from ..protocol import layout
    from ..protocol.buildlog import text_of

    found = status_of(client, config)
    stored = client.store.get(layout.log(found.key))
    if stored is None and found.failure is None:
        raise NotCached(f"{found.key} has no log: it is {found.state.value}")
    failure = found.as_dict()["failure"]
    log = text_of(stored.body) if stored else None
    return {"key": found.key, "state": found.state.value, "log": log, "failure": failure}


def _followed(app: App, client: Client, config: str) -> Status | None:
    """Print the log as it grows until nobody waits for the build; None when nobody does now."""
    from ..protocol import layout
    from ..protocol.buildlog import Follower
    from ..protocol.state import State

    follower, etag, waiting = Follower(), "", False
    while True:
        found = status_of(client, config)  # before the log, so that its end is not missed
        running = found.state in (State.BUILDING, State.REQUESTED)
        if not running and not waiting:
            return None
        if not running:
            _await_last_log(client, found.key)
        head = client.store.head(layout.log(found.key))
        stored = client.store.get(layout.log(found.key)) if head and head.etag != etag else None
        if stored is not None:
            etag = stored.etag
            click.echo(follower.new(stored.body), nl=False)
        if not running:
            return found
        if not waiting and found.state is State.REQUESTED:
            app.note(f"{found.key} is waiting for a builder")
        waiting = True
        time.sleep(FOLLOW_S)


def _await_last_log(client: Client, key: str) -> None:
    """The builder sends the end of the log after it has answered, and then removes the progress."""
    from ..protocol import layout

    deadline = time.monotonic() + LAST_LOG_S
    while client.store.head(layout.progress(key)) is not None and time.monotonic() < deadline:
        time.sleep(0.1)


def _print_failure(failure: Failure | None, *, log: bool) -> None:
    if failure is None:
        return
    for text in (failure.log_tail if log else "", failure.traceback):
        if text:
            click.echo(text.rstrip())
    click.echo(f"{failure.kind}: {failure.message}")


@click.command()
@click.argument("config")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to save the picture.")
@common
def preview(app: App, config: str, output: Path | None) -> None:
    """Save the contact sheet of a dataset's first examples; prints where it is."""
    from ..protocol import layout

    client = app.client()
    found = status_of(client, config)
    stored = client.store.get(layout.preview(found.key))
    if stored is None:
        raise NotCached(f"{found.key} has no preview: it is {found.state.value}")
    target = output or Path(f"{found.key}.preview.png")
    target.write_bytes(stored.body)
    if app.json:
        app.print_json({"path": str(target)})
    else:
        click.echo(str(target))


@click.command()
@click.argument("config")
@click.option("--expires", type=int, default=3600, show_default=True, metavar="SECONDS")
@common
def url(app: App, config: str, expires: int) -> None:
    """Print a URL that downloads the zip of a ready dataset without credentials."""
    if not 1 <= expires <= 7 * 86400:
        raise UsageError(f"--expires {expires}: a URL is valid for 1 s to 7 days (604800)")
    link = app.client().url(config, expires_s=expires)
    if app.json:
        app.print_json({"url": link, "expires_s": expires})
    else:
        click.echo(link)


@click.command()
@click.argument("config")
@common
def cancel(app: App, config: str) -> None:
    """Withdraw your requests for a dataset.

    CONFIG is a JSON file, a key, or the topic of one request. The build stops when everybody who
    asked for it has cancelled.
    """
    count = app.client().cancel(config)
    if app.json:
        app.print_json({"cancelled": count})
    elif count:
        app.note(f"cancelled {count} request{'s' if count > 1 else ''}")
    else:
        app.note("no request of yours is outstanding for it")


def status_of(client: Client, config: str) -> Status:
    """The state of what a command's argument names: a JSON file, a key, or a topic."""
    from ..catalog import status as look
    from ..reference import is_topic, spec_of

    if is_topic(config):
        config = config.rpartition(".")[0]
    key = config if split_key(config) else spec_of(config).key
    return look(client.store, key)
