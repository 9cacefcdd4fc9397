"""`dscache get`, `request`, `wait` and `run`: from a config to a path."""

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
from .common import App, common
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
)


def fetching(command: F) -> F:
    """The options of commands that get a dataset."""
    for option in (
        click.option("--retry", is_flag=True, help="Ask again even if it failed before."),
        click.option("--no-build", is_flag=True, help="Exit with 5 rather than have it built."),
        click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer than this."),
        PRIORITY,
        click.option("--split", "splits", multiple=True, help="Fetch only this split; repeatable."),
        click.option(
            "-j",
            "--parallel",
            type=click.IntRange(1, 8),
            help="Download over so many connections; without it dscache finds out what helps.",
        ),
        click.option("--shards", metavar="0-3,7", help="Fetch only these shards of each split."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("config")
@fetching
@common
def get(app: App, config: str, **how: Any) -> None:
    """Print the local path of the dataset that CONFIG describes; have it built if need be.

    CONFIG is a JSON file (or the key of a dataset that exists). The path is all that is printed on
    standard output.
    """
    dataset = _get(app, config, **how)
    if app.json:
        app.print_json({"key": dataset.key, "path": str(dataset.path), "info": dataset.info})
    else:
        click.echo(str(dataset.path))


@click.command()
@click.argument("config")
@PRIORITY
@common
def request(app: App, config: str, priority: int) -> None:
    """Ask for the dataset that CONFIG describes and return at once.

    Prints the topic, which `dscache wait` and `dscache cancel` take.
    """
    topic = app.client().request(config, priority=priority)
    if app.json:
        app.print_json({"topic": topic, "key": topic.rpartition(".")[0]})
    else:
        click.echo(topic)


@click.command()
@click.argument("config")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait no longer than this.")
@common
def wait(app: App, config: str, timeout: float | None) -> None:
    """Wait until a dataset is ready, without downloading it; prints its key.

    CONFIG is a topic that `dscache request` printed, or a JSON file (then it is asked for).
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
def run(app: App, config: str, command: tuple[str, ...], **how: Any) -> int:
    """Get the dataset, then become COMMAND, with {path} replaced by the dataset's path.

    So signals reach COMMAND, and its exit code is that of this. Nobody can remove the dataset while
    it runs. Example: dscache run cfg.json -- python train.py {path}
    """
    if not any("{path}" in word for word in command):
        raise UsageError(
            "the command has no {path}; write for example: "
            "dscache run cfg.json -- python train.py {path}"
        )
    dataset = _get(app, config, **how)
    words = [word.replace("{path}", str(dataset.path)) for word in command]
    with dataset.hold() as lock:
        lock.keep_over_exec()
        try:
            _become(words)
        except OSError as error:
            click.echo(f"dscache: cannot run {words[0]!r}: {error.strerror}", err=True)
            return COULD_NOT_START


def _become(words: list[str]) -> NoReturn:
    sys.stdout.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec keeps that
    os.execvp(words[0], words)


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
    rest = (
        "what has arrived is kept (`dscache get` again fetches the rest)"
        if display.downloading
        else "a build that has begun goes on (`dscache cancel` stops it, "
        "`dscache get` again picks it up)"
    )
    click.echo(f"dscache: interrupted; {rest}", err=True)
    sys.exit(EXIT_INTERRUPTED)


def parse_shards(text: str) -> list[int]:
    """`0-3,7` -> [0, 1, 2, 3, 7]. Raises UsageError."""
    numbers: set[int] = set()
    for piece in text.split(","):
        found = SHARDS.fullmatch(piece.strip())
        if found is None:
            raise UsageError(f"--shards {text!r}: {piece!r} is not a number or a range like 0-3")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last <= MAX_SHARD:
            why = "a range begins with the smaller number" if first > last else "is too large"
            raise UsageError(f"--shards {text!r}: {piece!r}: {why}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)
