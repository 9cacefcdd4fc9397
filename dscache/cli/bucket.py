"""`dscache status`, `show`, `logs`, `preview`, `url` and `cancel`: one dataset in the bucket."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..canonical import split_key
from ..errors import NotCached, UsageError
from ..terminal import print_path
from ..units import format_bytes, format_count
from .common import App, common, echo
from .ls import line

if TYPE_CHECKING:
    from ..catalog import Status
    from ..client import Client
    from ..protocol.manifests import Failure

FOLLOW_POLL_S = 1.0
MAX_PREVIEW_BYTES = 64 << 20
LAST_LOG_S = 3.0


@click.command()
@click.argument("config")
@common
def status(app: App, config: str) -> None:
    """Print the state of one dataset.

    The state is ready, building, requested, failed or absent. CONFIG is a JSON file, a key, or a
    topic.
    """
    current = status_of(app.client(), config)
    if app.json:
        app.print_json(current.as_dict())
        return
    echo(f"{current.key}  {current.state.value}")
    if current.asked != current.key:
        echo(f"  requested as {current.asked}")
    if current.requests:
        echo(f"  {current.requests} waiting")
    if current.progress:
        progress = current.progress
        echo(f"  {progress.phase}: {progress.done} of {progress.total} examples")
    if current.failure:
        echo(f"  {current.failure.kind}: {current.failure.message}")


@click.command()
@click.argument("config")
@common
def show(app: App, config: str) -> None:
    """Describe one ready dataset.

    Prints its config, splits and bad samples; with --json also its features and files. CONFIG is a
    JSON file, a key, or a topic.
    """
    import json

    from ..catalog import summary
    from ..protocol.manifests import Live

    current = status_of(app.client(), config)
    if not isinstance(current.ready, Live):
        raise NotCached(f"{current.key} is {current.state.value}; see `dscache status`")
    live = current.ready
    document = {
        **summary(live),
        "features": live.features,
        "bad_samples": [{"sample": bad.sample, "error": bad.error} for bad in live.bad_samples],
        "more_bad_samples": live.more_bad_samples,
        "members": [member.name for member in live.members],
        "lock_digest": live.lock_digest,
    }
    if app.json:
        app.print_json(document)
        return
    echo(line(document, local=False).rstrip())
    echo(f"  config     {json.dumps(live.spec.dataset_config, sort_keys=True)}")
    splits = ", ".join(f"{split} {count}" for split, count in live.splits.items())
    echo(f"  splits     {splits} examples in {len(live.shards)} shards")
    echo(f"  built      in {live.timings.build_s:g} s by {live.builder or 'unknown'}")
    echo(f"  object     {live.zip_key} ({format_bytes(live.zip_size)})")
    for bad in live.bad_samples:
        echo(f"  left out   {bad.sample}{': ' if bad.error else ''}{bad.error}")
    if live.more_bad_samples:
        echo(f"  left out   {live.more_bad_samples} more that are not listed")


@click.command()
@click.argument("config")
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the build has ended.")
@common
def logs(app: App, config: str, follow: bool) -> None:
    """Print the log of a dataset's last build, or why it failed.

    CONFIG is a JSON file, a key, or a topic. The builder uploads its log every few seconds;
    --follow prints the new lines.
    """
    from ..protocol import layout
    from ..protocol.buildlog import text_of

    if app.json and follow:
        raise UsageError("--json prints one document and --follow many lines: choose one")
    client = app.client()
    if app.json:
        app.print_json(_log_document(client, config))
        return
    ended = _follow(app, client, config) if follow else None
    if ended is not None:
        _print_failure(ended.failure, log=False)
        return
    current = status_of(client, config)
    stored = client.store.get(layout.log(current.key))
    if stored is not None and current.failure is None:
        echo(text_of(stored.body), nl=False)
        return
    if current.failure is None:
        raise NotCached(f"{current.key} has no log: it is {current.state.value}")
    _print_failure(current.failure, log=True)


def _log_document(client: Client, config: str) -> dict[str, Any]:
    from ..protocol import layout
    from ..protocol.buildlog import text_of

    current = status_of(client, config)
    stored = client.store.get(layout.log(current.key))
    if stored is None and current.failure is None:
        raise NotCached(f"{current.key} has no log: it is {current.state.value}")
    failure = current.as_dict()["failure"]
    log = text_of(stored.body) if stored else None
    return {"key": current.key, "state": current.state.value, "log": log, "failure": failure}


def _follow(app: App, client: Client, config: str) -> Status | None:
    """Print the log as it grows and return the status when the build has ended.

    Returns None without printing when the dataset is not being built.
    """
    from ..protocol import layout
    from ..protocol.buildlog import Follower
    from ..protocol.state import State

    follower, etag, was_running = Follower(), "", False
    while True:
        current = status_of(client, config)  # before the log, so that its end is not missed
        running = current.state in (State.BUILDING, State.REQUESTED)
        if not running and not was_running:
            return None
        if not running:
            _wait_for_last_log(client, current.key)
        head = client.store.head(layout.log(current.key))
        stored = client.store.get(layout.log(current.key)) if head and head.etag != etag else None
        if stored is not None:
            etag = stored.etag
            echo(follower.new(stored.body), nl=False)
        if not running:
            return current
        if not was_running and current.state is State.REQUESTED:
            app.note(f"{current.key} is waiting for a builder")
        was_running = True
        time.sleep(FOLLOW_POLL_S)


def _wait_for_last_log(client: Client, key: str) -> None:
    """Wait until the progress object is deleted: the builder answers, uploads the rest of its log,
    then deletes the progress."""
    from ..protocol import layout

    deadline = time.monotonic() + LAST_LOG_S
    while client.store.head(layout.progress(key)) is not None and time.monotonic() < deadline:
        time.sleep(0.1)


def _print_failure(failure: Failure | None, *, log: bool) -> None:
    if failure is None:
        return
    for text in (failure.log_tail if log else "", failure.traceback):
        if text:
            echo(text.rstrip())
    echo(f"{failure.kind}: {failure.message}")


@click.command()
@click.argument("config")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write.  [default: KEY.preview.png]",
)
@common
def preview(app: App, config: str, output: Path | None) -> None:
    """Save an image of a dataset's first examples.

    CONFIG is a JSON file, a key, or a topic.
    """
    from ..protocol import layout

    client = app.client()
    current = status_of(client, config)
    stored = client.store.get(layout.preview(current.key), limit_bytes=MAX_PREVIEW_BYTES)
    if stored is None:
        raise NotCached(f"{current.key} has no preview: it is {current.state.value}")
    target = output or Path(f"{current.key}.preview.png")
    target.write_bytes(stored.body)
    if app.json:
        app.print_json({"path": str(target)})
    else:
        print_path(target)


@click.command()
@click.argument("config")
@click.option(
    "--expires",
    type=int,
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long the URL is valid, at most 7 days.",
)
@common
def url(app: App, config: str, expires: int) -> None:
    """Print a URL of a ready dataset's zip.

    The URL works without credentials until it expires. CONFIG is a JSON file, a key, or a topic.
    """
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

    CONFIG is a JSON file, a key, or the topic of one request. The build stops when everyone who
    requested the dataset has cancelled.
    """
    count = app.client().cancel(config)
    if app.json:
        app.print_json({"cancelled": count})
    elif count:
        app.note(f"cancelled {format_count(count, 'request')}")
    else:
        app.note("you have no outstanding request for it")


def status_of(client: Client, config: str) -> Status:
    """Return the status of the dataset that `config` names: a JSON file, a key, or a topic."""
    from ..catalog import status as read_status
    from ..reference import is_topic, spec_of

    if is_topic(config):
        config = config.rpartition(".")[0]
    key = config if split_key(config) else spec_of(config).key
    return read_status(client.store, key)
