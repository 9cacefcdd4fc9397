"""`dscache up` and `dscache down`: a local store and builder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..devstack.stack import StackReport

DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the stack: data, credentials, logs.  [default: under $XDG_STATE_HOME]",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("up")
@DIRECTORY
@click.option("--no-builder", is_flag=True, help="Start the store alone.")
@click.option(
    "--raw",
    multiple=True,
    metavar="NAME=DIR",
    help="Serve dataset_name NAME from the raw data in DIR. May be repeated.",
)
@click.option("--profile", default="local", show_default=True, help="Profile to write.")
@AS_JSON
def up(
    directory: Path | None, no_builder: bool, raw: tuple[str, ...], profile: str, as_json: bool
) -> None:
    """Start a local store and builder, and configure this user for them.

    Uses the configured store if one answers. May be run again at any time: it starts what is
    missing and changes nothing else.
    """
    from ..devstack import extra

    extra.require_installed(builder=not no_builder)
    from ..devstack import builderfile, folder, stack

    options = stack.StackOptions(
        directory=(directory or folder.default(os.environ)).resolve(),
        profile=profile,
        builder=not no_builder,
        raw=builderfile.parse_raw(raw),
    )
    report = stack.up(options, os.environ, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(_facts(report), indent=2))
    else:
        custom = options.directory != folder.default(os.environ).resolve()
        click.echo("\n".join(_lines(report, custom=custom, terminal=sys.stdout.isatty())))


@click.command("down")
@DIRECTORY
@click.option("--delete", is_flag=True, help="Delete its data and the profile as well.")
@AS_JSON
def down(directory: Path | None, delete: bool, as_json: bool) -> None:
    """Stop what `dscache up` started. Data stays unless --delete is given."""
    from ..devstack import extra

    extra.require_installed(builder=False)
    from ..devstack import folder, takedown

    place = (directory or folder.default(os.environ)).resolve()
    done = takedown.down(place, os.environ, delete=delete)
    if as_json:
        click.echo(json.dumps({"directory": str(place), "done": done}, indent=2))
    else:
        click.echo("\n".join(done or ["nothing was running"]))


def _lines(report: StackReport, *, custom: bool, terminal: bool) -> list[str]:
    """What a person wants to know. The password is shown on a terminal only."""
    place, directory = report.place, report.directory
    where = f" --directory {directory}" if custom else ""
    lines = [
        *(f"{change}" for change in report.changed or ["all of it was running already"]),
        "",
        f"store    {place.client.endpoint}  bucket {place.client.bucket}{_store_note(report)}",
    ]
    if place.own:
        password = (
            place.client.secret_key
            if terminal
            else f"in {directory / 'credentials.json'}, under client"
        )
        lines.append(f"console  {place.client.console}")
        lines.append(f"         user {place.client.access_key}, password {password}")
    pid = f"  (process {report.builder_pid})" if report.builder_pid else ""
    lines.append(f"builder  {report.builder}{pid}")
    lines.append(f"files    {directory}")
    if place.own:
        lines.append(f"profile  {report.profile!r} in {report.user_file}")
        if not report.default:
            lines.append(f"         not the default one here: set DSCACHE_PROFILE={report.profile}")
    if place.own or report.builder_pid:
        lines += ["", f"stop it with: dscache down{where}"]
    return lines


def _store_note(report: StackReport) -> str:
    own = report.place.own
    return f"  (process {own.pid})" if own else "  (configured; none was started)"


def _facts(report: StackReport) -> dict[str, Any]:
    """The same for programs; no secrets."""
    client, own = report.place.client, report.place.own
    return {
        "endpoint": client.endpoint,
        "bucket": client.bucket,
        "console": client.console,
        "console_user": client.access_key,
        "store_pid": own.pid if own else None,
        "builder": report.builder,
        "builder_pid": report.builder_pid,
        "directory": str(report.directory),
        "profile": report.profile,
        "user_file": str(report.user_file),
        "default": report.default,
        "changed": report.changed,
    }
