"""The `dscache` command group. A command's module is imported when the command runs."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import EXIT_INTERRUPTED, BuildFailed, DscacheError
from ..terminal import logger, show_any_text, unexpected
from .common import echo

# command: its module
COMMANDS = {
    "get": "get",
    "request": "get",
    "wait": "get",
    "run": "get",
    "cancel": "bucket",
    "status": "bucket",
    "ls": "ls",
    "show": "bucket",
    "url": "bucket",
    "logs": "bucket",
    "preview": "bucket",
    "verify": "verify",
    "cache": "cache",
    "up": "stack",
    "down": "stack",
    "doctor": "doctor",
    "trust": "trust",
    "admin": "admin",
}

EPILOG = (
    "Exit codes: 0 success, 1 unexpected error, 2 usage or configuration, 3 build failed, "
    "4 timed out waiting, 5 not cached (--no-build), 6 access denied, 7 store unreachable, "
    "8 integrity, 130 interrupted."
)


class LazyGroup(click.Group):
    """Import the module of a command only when the command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name]}", __package__)
        command = getattr(module, "list_" if cmd_name == "ls" else cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            similar = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise click.UsageError(f"{error.message}{hint}", ctx) from None


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dscache")
def cli() -> None:
    """Build machine-learning datasets on demand and cache them in an object store."""


def run() -> None:
    """Run a command. An error is one line on standard error, and its class sets the exit code."""
    show_any_text()
    try:
        result = cli.main(prog_name="dscache", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("dscache: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BuildFailed as error:
        if error.details:
            echo(error.details.rstrip(), err=True)
        echo(f"dscache: {error}", err=True)
        sys.exit(error.exit_code)
    except DscacheError as error:
        echo(f"dscache: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        exit_with(error)
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, it is one line
        exit_unexpected(error)


def exit_unexpected(error: Exception) -> NoReturn:
    """Print an error that nobody expected, and exit with 1; the log of -v says where it arose."""
    logger("dscache").debug("unexpected error", exc_info=error)
    hint = "-v shows where it happened; please report it"
    echo(f"dscache: {unexpected(error)} ({hint})", err=True)
    sys.exit(1)


def exit_with(error: OSError) -> NoReturn:
    """Print the operating system's error and exit with 1; with 0 after a broken pipe."""
    broken_pipe = isinstance(error, BrokenPipeError)  # `dscache ls | head`
    if not broken_pipe:
        where = f": {error.filename}" if error.filename else ""
        echo(f"dscache: {error.strerror or error}{where}", err=True)
    with contextlib.suppress(OSError):  # or flushing the rest of the buffer would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0 if broken_pipe else 1)
