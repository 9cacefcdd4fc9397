"""`dscache get`, `request`, `wait` and `run`: request, build and download datasets."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from ..errors import EXIT_INTERRUPTED, UsageError
from ..protocol.priority import DEFAULT_PRIORITY, MAX_PRIORITY, MIN_PRIORITY
from ..terminal import print_path
from .common import App, common, echo
from .progress import Display

if TYPE_CHECKING:
    from ..reading.dataset import Dataset

F = TypeVar("F", bound=Callable[..., Any])
COULD_NOT_START = 127
SHARDS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
MAX_SHARD = 99_999  # names have five digits
PRIORITY = click.option(
    "--priority",
    type=click.IntRange(MIN_PRIORITY, MAX_PRIORITY),
    default=DEFAULT_PRIORITY,
    show_default=True,
    help="Requests with a higher priority are built first.",
)
TIMEOUT = click.option(
    "--timeout", type=float, metavar="SECONDS", help="Exit with 4 after waiting this long."
)
GET_OPTIONS = (
    click.option(
        "--split", "splits", multiple=True, metavar="NAME", help="Get only this split; repeatable."
    ),
    click.option("--shards", metavar="0-3,7", help="Get only these shards of each split."),
    click.option("--no-build", is_flag=True, help="Exit with 5 instead of requesting a build."),
    click.option("--retry", is_flag=True, help="Request it again even if it failed before."),
    PRIORITY,
    TIMEOUT,
    click.option(
        "-j",
        "--parallel",
        type=click.IntRange(1, 8),
        help="Number of download connections.  [default: adapted to the network]",
    ),
)


def fetching(command: F) -> F:
    """Add the options of the commands that get a dataset."""
    for option in reversed(GET_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("config")
@fetching
@common
def get(app: App, config: str, **options: Any) -> None:
    """Print the local path of a dataset.

    Builds and downloads the dataset if necessary. CONFIG is a JSON file, or the key of a dataset
    that exists. Only the path is printed on standard output.
    """
    dataset = _get(app, config, **options)
    if app.json:
        app.print_json({"key": dataset.key, "path": str(dataset.path), "info": dataset.info})
    else:
        print_path(dataset.path)


@click.command()
@click.argument("config")
@PRIORITY
@common
def request(app: App, config: str, priority: int) -> None:
    """Request a dataset and return immediately.

    Prints the topic of the request, for `dscache wait` and `dscache cancel`. CONFIG is a JSON file.
    """
    topic = app.client().request(config, priority=priority)
    if app.json:
        app.print_json({"topic": topic, "key": topic.rpartition(".")[0]})
    else:
        click.echo(topic)


@click.command()
@click.argument("config")
@TIMEOUT
@common
def wait(app: App, config: str, timeout: float | None) -> None:
    """Wait until a dataset is ready, and print its key.

    CONFIG is a topic that `dscache request` printed, or a JSON file, which is then requested.
    Nothing is downloaded.
    """
    display = Display(quiet=app.quiet)
    try:
        key = app.client().wait(config, timeout_s=timeout, observer=display)
    except KeyboardInterrupt:
        _interrupted(display)
    finally:
        display.close()
    if app.json:
        app.print_json({"key": key})
    else:
        click.echo(key)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("config")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@fetching
@common
def run(app: App, config: str, command: tuple[str, ...], **options: Any) -> int:
    """Get a dataset, then run COMMAND on it.

    {path} in COMMAND is replaced by the dataset's path. COMMAND replaces the dscache process, so it
    receives all signals and its exit code is the result. The dataset cannot be removed while
    COMMAND runs. Example: dscache run cfg.json -- python train.py {path}
    """
    if not any("{path}" in word for word in command):
        raise UsageError(
            "the command does not contain {path}; for example: "
            "dscache run cfg.json -- python train.py {path}"
        )
    dataset = _get(app, config, **options)
    argv = [word.replace("{path}", str(dataset.path)) for word in command]
    with dataset.hold() as lock:
        lock.keep_over_exec()
        try:
            _exec(argv)
        except OSError as error:
            echo(f"dscache: cannot run {argv[0]!r}: {error.strerror}", err=True)
            return COULD_NOT_START


def _exec(argv: list[str]) -> NoReturn:
    sys.stdout.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would keep that
    os.execvp(argv[0], argv)


def _get(
    app: App,
    config: str,
    *,
    retry: bool,
    no_build: bool,
    timeout: float | None,
    priority: int,
    splits: tuple[str, ...],
    shards: str | None,
    parallel: int | None,
) -> Dataset:
    display = Display(quiet=app.quiet)
    try:
        return app.client().get(
            config,
            build=not no_build,
            retry=retry,
            timeout_s=timeout,
            splits=splits or None,
            shards=None if shards is None else parse_shards(shards),
            priority=priority,
            parallel=parallel,
            observer=display,
        )
    except KeyboardInterrupt:
        _interrupted(display)
        raise
    finally:
        display.close()


def _interrupted(display: Display) -> None:
    display.close()
    remedy = (
        "the downloaded part is kept; run `dscache get` again to fetch the rest"
        if display.downloading
        else "a build that has started continues; run `dscache get` again to wait for it, or "
        "`dscache cancel` to stop it"
    )
    click.echo(f"dscache: interrupted; {remedy}", err=True)
    sys.exit(EXIT_INTERRUPTED)


def parse_shards(text: str) -> list[int]:
    """`0-3,7` -> [0, 1, 2, 3, 7]. Raises UsageError."""
    numbers: set[int] = set()
    for piece in text.split(","):
        match = SHARDS.fullmatch(piece.strip())
        if match is None:
            raise UsageError(f"--shards {text!r}: {piece!r} is not a number or a range like 0-3")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= MAX_SHARD:
            why = "a range starts with the smaller number" if first > last else "is too large"
            raise UsageError(f"--shards {text!r}: {piece!r}: {why}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)
