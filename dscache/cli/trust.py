"""`dscache trust`: let a project file say where credentials are sent and where datasets lie."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import UsageError
from .common import App, common


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--revoke", is_flag=True, help="Trust the file no longer.")
@common
def trust(app: App, file: Path | None, revoke: bool) -> None:
    """Trust a project file with your credentials and your datasets.

    FILE is a dscache.toml; by default that of the working directory or a folder above it. A
    project file may choose the profile, the bucket and the cache_limit. An endpoint in it is used
    with credentials from elsewhere, and a cache (home, shared_homes) in it is used at all, only
    after you have trusted the file. Trust ends when the file changes.
    """
    from .. import trust as trusting
    from ..config import project_file, user_file

    path = file or project_file(Path.cwd())
    if path is None:
        raise UsageError("no dscache.toml in this directory or above it; name the file")
    folder = user_file(os.environ).parent
    if revoke:
        if not trusting.revoke(path, folder):
            raise UsageError(f"{path} was not trusted")
        app.note(f"{path} is no longer trusted")
        return
    real = trusting.trust(path, folder)
    if app.json:
        app.print_json({"trusted": str(real)})
    else:
        app.note(f"{real} is trusted as it is now")
