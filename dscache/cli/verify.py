"""`dscache verify`: is what is stored what the ready marker says?"""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import click

from ..errors import IntegrityError, NotCached, UsageError
from ..units import format_bytes
from .bucket import status_of
from .common import App, common

if TYPE_CHECKING:
    from ..verify.verify import VerifyReport

TELL_EVERY_S = 5.0


@click.command()
@click.argument("config", metavar="KEY|CONFIG")
@click.option(
    "--rebuild-shard",
    metavar="N|random",
    help="Build a shard again and compare: only the builder can; prints the command to run there.",
)
@common
def verify(app: App, config: str, rebuild_shard: str | None) -> int:
    """Read a stored dataset again and check all of it; nothing is kept on this disk.

    KEY, or a JSON file. Checked are the zip's structure, CRC-32 and BLAKE3 of every file, the
    checksums of every record, the numbers of records, and that dataset_info.json and features.json
    agree with the ready marker. Prints a line for each problem and exits with 8 when there is one.
    """
    from ..protocol.manifests import Live
    from ..verify.verify import verify as read_again

    client = app.client()
    found = status_of(client, config)
    if rebuild_shard is not None:
        raise UsageError(_run_there(found.key, rebuild_shard))
    if not isinstance(found.ready, Live):
        raise NotCached(f"{found.key} is {found.state.value}; see `dscache status`")
    live = found.ready
    report = read_again(
        client.store,
        live,
        lambda: client.store.presign_get(live.zip_key),
        key=found.key,
        progress=_Telling(app),
    )
    if app.json:
        app.print_json(report.as_dict())
    else:
        _print(report)
    return IntegrityError.exit_code if report.problems else 0


class _Telling:
    """Says now and then how far it is."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._told_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self._app.note(f"verifying: {100 * done // max(total, 1)} % of {format_bytes(total)}")


def _print(report: VerifyReport) -> None:
    for problem in report.problems:
        click.echo(str(problem))
    read = (
        f"{report.shards} shards, {report.records} records, {format_bytes(report.bytes)} read "
        f"in {report.seconds:.1f} s"
    )
    if report.problems:
        count = len(report.problems)
        click.echo(f"{report.key}: {count} problem{'s' if count > 1 else ''}; {read}")
    else:
        click.echo(f"{report.key}: ok; {read}")


def _run_there(key: str, shard: str) -> str:
    command = ["dscache-builder", "--config", "builder.toml", "verify", key]
    return (
        "--rebuild-shard needs the raw data and the handler, which the builder has; run there: "
        f"{shlex.join([*command, '--rebuild-shard', shard])}"
    )
