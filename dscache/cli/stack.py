"""`dscache up` and `dscache down`: start and stop a local store and builder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import VERBOSE_HELP, echo, log_if_verbose

if TYPE_CHECKING:
    from ..devstack.stack import StackReport

DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for data, credentials and logs.  [default: $XDG_STATE_HOME/dscache/stack]",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
VERBOSE = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=log_if_verbose, help=VERBOSE_HELP
)


@click.command("up")
@DIRECTORY
@click.option("--no-builder", is_flag=True, help="Start only the store.")
@click.option(
    "--raw",
    multiple=True,
    metavar="NAME=DIR",
    help="Build dataset NAME from the raw data in DIR; repeatable.",
)
@click.option(
    "--profile",
    default="local",
    show_default=True,
    metavar="NAME",
    help="Profile to write to the configuration file.",
)
@AS_JSON
@VERBOSE
def up(
    directory: Path | None, no_builder: bool, raw: tuple[str, ...], profile: str, as_json: bool
) -> None:
    """Start a local store and builder, and write a profile for them.

    If a configured store answers, it is used instead of a local one. Running the command again
    starts only what is not running.
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
    report = stack.up(options, os.environ, lambda line: echo(line, err=True))
    if as_json:
        click.echo(json.dumps(_report_json(report), indent=2))
    else:
        custom = options.directory != folder.default(os.environ).resolve()
        click.echo("\n".join(_report_lines(report, custom=custom, terminal=sys.stdout.isatty())))


@click.command("down")
@DIRECTORY
@click.option("--delete", is_flag=True, help="Also delete the data and the profile.")
@AS_JSON
@VERBOSE
def down(directory: Path | None, delete: bool, as_json: bool) -> None:
    """Stop what `dscache up` started.

    The data is kept unless --delete is given.
    """
    from ..devstack import extra

    extra.require_installed(builder=False)
    from ..devstack import folder, takedown

    stack_directory = (directory or folder.default(os.environ)).resolve()
    done = takedown.down(stack_directory, os.environ, delete=delete)
    if as_json:
        click.echo(json.dumps({"directory": str(stack_directory), "done": done}, indent=2))
    else:
        click.echo("\n".join(done or ["nothing was running"]))


def _report_lines(report: StackReport, *, custom: bool, terminal: bool) -> list[str]:
    """Return the report as text. The password is shown only on a terminal."""
    place, directory = report.place, report.directory
    option = f" --directory {directory}" if custom else ""
    lines = [
        *(report.changed or ["everything was already running"]),
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
            lines.append(
                f"         not the default here; to use it, set DSCACHE_PROFILE={report.profile}"
            )
    if place.own or report.builder_pid:
        lines += ["", f"to stop it: dscache down{option}"]
    return lines


def _store_note(report: StackReport) -> str:
    own = report.place.own
    return f"  (process {own.pid})" if own else "  (configured, not started here)"


def _report_json(report: StackReport) -> dict[str, Any]:
    """Return the report as a JSON document, without secrets."""
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
