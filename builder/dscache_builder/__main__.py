"""`dscache-builder`, also `python -m dscache_builder`."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

import click

from dscache.errors import EXIT_INTERRUPTED, DscacheError
from dscache.logformat import SafeFormatter
from dscache.terminal import logger, printable, show_any_text, unexpected

from . import __version__
from . import config as configuration

log = logger("dscache_builder")

EPILOG = (
    "Exit codes: 0 ok, 2 configuration, 3 a build failed (--once), 6 access denied, 7 no store, "
    "8 a shard differs (verify)."
)


@click.group(invoke_without_command=True, epilog=EPILOG)
@click.option(
    "--config", "path", type=click.Path(path_type=Path), default="builder.toml", show_default=True
)
@click.option("--check-config", is_flag=True, help="Check configuration and store, then exit.")
@click.option("--once", is_flag=True, help="Build what is requested now, then exit.")
@click.option("-v", "--verbose", is_flag=True, help="Log the decisions as well.")
@click.version_option(__version__, prog_name="dscache-builder")
@click.pass_context
def cli(context: click.Context, path: Path, check_config: bool, once: bool, verbose: bool) -> None:
    """Build the datasets that are requested in a bucket, beside the raw data."""
    if verbose or context.invoked_subcommand is None:
        _log_to_stderr(verbose=verbose)
    if context.invoked_subcommand is not None:
        return
    config = configuration.load(path)
    if configuration.is_secret_exposed(path, config):
        log.warning("%s: every user here can read its secret_key; chmod o= %s", path, path)
    context.exit(serve(config, check_only=check_config, once=once))


def _log_to_stderr(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)
    for noisy in ("botocore", "boto3", "urllib3", "filelock", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def serve(config: configuration.BuilderConfig, *, check_only: bool, once: bool) -> int:
    """Run the daemon and return the exit code."""
    from dscache.protocol.selftest import check_conditional_create
    from dscache.store.s3 import Store

    from .attempt.context import Outcome
    from .daemon import Daemon
    from .environments.environment import Environments
    from .handler_engine import HandlerEngine
    from .identity import claimed_state
    from .notify import Notifier

    store = Store(config.store_config(os.environ))
    if check_only:
        check_conditional_create(store, secrets.token_hex(8))
        missing = [str(s.raw) for s in config.datasets.values() if not s.raw.is_dir()]
        for folder in missing:
            click.echo(f"raw data does not exist: {folder}", err=True)
        click.echo("ok" if not missing else "not ok")
        return 2 if missing else 0
    with claimed_state(config.state) as builder_id:
        config.scratch.mkdir(parents=True, exist_ok=True)
        environments = Environments(
            config.state / "environments",
            find_links=config.find_links,
            index_url=config.index_url,
        )
        engine = HandlerEngine(config, store, environments)
        name = config.name or socket.gethostname()
        keep_s = config.environments_keep_days * configuration.DAY_S
        daemon = Daemon(
            config, store, engine, builder_id, name, prune=lambda: environments.prune(keep_s)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.stop())
        if once:
            return 3 if Outcome.FAILED in daemon.once() else 0
        daemon.run(Notifier.from_environ(os.environ))
    return 0


def main() -> None:
    """Run the command; print errors that the user can fix as one line on standard error."""
    from .commands.try_handler import try_command
    from .commands.verify_shard import verify_command

    cli.add_command(try_command)
    cli.add_command(verify_command)
    show_any_text()
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except DscacheError as error:
        click.echo(printable(f"dscache-builder: {error}"), err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, it is one line
        _exit_unexpected(error)


def _exit_unexpected(error: Exception) -> NoReturn:
    """Print an error that nobody expected, and exit with 1.

    The daemon's log always says where it arose, since it may not happen again; that of a command
    does so with -v.
    """
    if logging.getLogger().handlers:
        log.error("unexpected error", exc_info=error)
    hint = "-v before the command shows where it happened; please report it"
    click.echo(printable(f"dscache-builder: {unexpected(error)} ({hint})"), err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
