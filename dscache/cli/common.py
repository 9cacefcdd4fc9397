"""The options that the commands share."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..terminal import printable

if TYPE_CHECKING:
    from ..client import Client
    from ..config import Config

F = TypeVar("F", bound=Callable[..., Any])
VERBOSE_HELP = "Log requests, retries and waits, and where an unexpected error arose."


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text that others may have written: control characters are spelled out."""
    click.echo(printable(text), err=err, nl=nl)


@dataclass(frozen=True)
class App:
    """The values of the shared options: `--profile`, `--json`, `-q`, `-v`."""

    profile: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def config(self) -> Config:
        """Load the configuration. Raises ConfigError."""
        from ..config import load

        return load(profile=self.profile)

    def client(self) -> Client:
        """Make a client with that configuration."""
        from ..client import Client

        return Client(self.config())

    def note(self, text: str) -> None:
        """Print a message on standard error, unless -q was given."""
        if not self.quiet:
            echo(text, err=True)

    def print_json(self, document: Any) -> None:
        """Print the result as JSON on standard output."""
        text = json.dumps(document, indent=2, default=str)
        click.echo(text.replace("\x7f", r"\u007f"))  # the only one that json.dumps leaves


def common(command: F) -> F:
    """Give a command `--profile --json -q -v`; it gets them as its first argument, an App."""

    @click.option("--profile", metavar="NAME", help="Profile of the configuration file.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no messages.")
    @click.option("-v", "--verbose", is_flag=True, help=VERBOSE_HELP)
    @functools.wraps(command)
    def wrapped(
        *args: Any, profile: str | None, as_json: bool, quiet: bool, verbose: bool, **kwargs: Any
    ) -> Any:
        if verbose:
            _log_to_stderr()
        return command(App(profile, as_json, quiet, verbose), *args, **kwargs)

    return wrapped  # type: ignore[return-value]  # click's decorators keep the callable


def log_if_verbose(ctx: click.Context, param: click.Parameter, verbose: bool) -> None:  # noqa: ARG001 - click's signature
    """Start the log of -v, for commands that have no `common` options."""
    if verbose:
        _log_to_stderr()


def _log_to_stderr() -> None:
    """Print the log of `dscache`, and of no other library, on standard error."""
    import logging

    from ..logformat import SafeFormatter

    handler = logging.StreamHandler(sys.stderr)
    format_ = "%(asctime)s.%(msecs)03d %(name)s: %(message)s"
    handler.setFormatter(SafeFormatter(format_, "%H:%M:%S"))
    logger = logging.getLogger("dscache")
    logger.handlers = [handler]  # replaces that of an earlier command in this process
    logger.setLevel(logging.DEBUG)
