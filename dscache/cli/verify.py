"""`dscache verify`: compare a stored dataset with its ready marker."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import click

from ..errors import IntegrityError, NotCached, UsageError
from ..units import format_bytes, format_count
from .bucket import status_of
from .common import App, common, echo

if TYPE_CHECKING:
    from ..verify.verify import VerifyReport

REPORT_S = 5.0


@click.command()
@click.argument("config", metavar="KEY|CONFIG")
@click.option(
    "--rebuild-shard",
    metavar="N|random",
    help="Rebuild a shard and compare it. Only a builder can; prints the command to run there.",
)
@common
def verify(app: App, config: str, rebuild_shard: str | None) -> int:
    """Read a stored dataset again and check every byte.

    Checks the zip's structure, CRC-32 and BLAKE3 of every file, the checksum of every record, the
    number of records, and that dataset_info.json and features.json agree with the ready marker.
    Prints a line for each problem, and exits with 8 if there is one. Nothing is kept on disk.
    """
    from ..protocol.manifests import Live
    from ..verify.verify import verify as verify_stored

    client = app.client()
    current = status_of(client, config)
    if rebuild_shard is not None:
        raise UsageError(_rebuild_message(current.key, rebuild_shard))
    if not isinstance(current.ready, Live):
        raise NotCached(f"{current.key} is {current.state.value}; see `dscache status`")
    live = current.ready
    report = verify_stored(
        client.store,
        live,
        lambda: client.store.presign_get(live.zip_key),
        key=current.key,
        progress=_ProgressNotes(app),
    )
    if app.json:
        app.print_json(report.as_dict())
    else:
        _print(report)
    return IntegrityError.exit_code if report.problems else 0


class _ProgressNotes:
    """Prints the progress every 5 seconds."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._reported_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._reported_at >= REPORT_S:
            self._reported_at = now
            self._app.note(f"verifying: {100 * done // max(total, 1)} % of {format_bytes(total)}")


def _print(report: VerifyReport) -> None:
    for problem in report.problems:
        echo(str(problem))
    counts = f"{format_count(report.shards, 'shard')}, {format_count(report.records, 'record')}"
    summary = f"{counts}, {format_bytes(report.bytes)} read in {report.seconds:.1f} s"
    if report.problems:
        echo(f"{report.key}: {format_count(len(report.problems), 'problem')}; {summary}")
    else:
        echo(f"{report.key}: ok; {summary}")


def _rebuild_message(key: str, shard: str) -> str:
    command = ["dscache-builder", "--config", "builder.toml", "verify", key]
    return (
        "--rebuild-shard needs the raw data and the handler; run this where the builder runs: "
        f"{shlex.join([*command, '--rebuild-shard', shard])}"
    )
