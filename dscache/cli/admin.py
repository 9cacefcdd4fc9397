"""`dscache admin …`: repair what is in the bucket, with the builder's rights."""

from __future__ import annotations

import secrets

import click

from ..errors import AccessDenied, UsageError
from .common import App, common


@click.group("admin")
def admin() -> None:
    """Repair the bucket, with the builder's rights.

    Use the access_key and secret_key of builder.toml: put them into a profile of their own, and
    select it with --profile.
    """


@admin.command("unlock")
@click.argument("dataset_name", metavar="NAME")
@click.argument("handler_version", metavar="VERSION")
@common
def unlock(app: App, dataset_name: str, handler_version: str) -> None:
    """Take back the lock of a handler version.

    The first build of VERSION of the dataset_name NAME fixes its source and its packages for all
    builders. This is for a source that was wrong: the next build fixes them again. Nothing may
    hang on the lock: no dataset that is ready or an alias, and no build that is running.
    """
    from ..protocol.unlock import unlock as take_back
    from ..spec import DATASET_NAME, HANDLER_VERSION

    if not (DATASET_NAME.fullmatch(dataset_name) and HANDLER_VERSION.fullmatch(handler_version)):
        raise UsageError(
            f"{dataset_name} {handler_version}: expected a dataset_name and a handler_version, "
            "for example photos 1.0.0"
        )
    client = app.client()
    try:
        lock = take_back(
            client.store, dataset_name, handler_version, by=client.name, nonce=secrets.token_hex(8)
        )
    except AccessDenied as error:
        raise AccessDenied(
            f"{error}; `dscache admin` needs the builder's rights: select a profile with the "
            "access_key and secret_key of builder.toml (--profile)"
        ) from error
    if app.json:
        app.print_json(
            {"dataset_name": dataset_name, "handler_version": handler_version,
             "was_locked_from": lock.source}
        )  # fmt: skip
    else:
        app.note(
            f"{dataset_name} {handler_version} is no longer locked from {lock.source}; "
            "the next build locks it again"
        )
