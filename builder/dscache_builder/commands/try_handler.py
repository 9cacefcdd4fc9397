"""`dscache-builder try`: run a handler on a few samples and show the result."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from dscache.config import default_home
from dscache.errors import ConfigError, DscacheError, UsageError
from dscache.spec import Spec, load_spec
from dscache.terminal import printable

from .. import config as configuration
from ..config import BuilderConfig, DatasetSource
from ..environments.environment import Environments
from ..failure import HandlerFailure
from .source_watch import SourcesChanged, SourceWatch
from .trial import Trial, run_trial

Heartbeat = Callable[[], None]
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class TryOptions:
    """The command's arguments; see its help."""

    config: Path
    samples: int
    handler: Path | None
    raw: Path | None
    out: Path
    entry_point: str
    find_links: tuple[str, ...]
    builder_config: Path | None
    sample_seconds: float | None


@click.command("try")
@click.argument("config", type=FILE)
@click.option("--samples", type=click.IntRange(1), default=10, show_default=True)
@click.option("--handler", type=FOLDER, help="Working copy of the handler's package.")
@click.option("--raw", type=FOLDER, help="Raw data [default: from --builder-config].")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("try-out"),
    show_default=True,
    help="Folder for the contact sheet and the handler's log.",
)
@click.option("--entry-point", default="", help="The handler's name [default: dataset_name].")
@click.option("--find-links", multiple=True, help="Folder with wheels that are on no index.")
@click.option("--builder-config", type=FILE, help="builder.toml, for what is not given here.")
@click.option("--sample-seconds", type=float, help="Time limit for one sample.")
@click.option("--watch", is_flag=True, help="Try again whenever a source file changes.")
def try_command(watch: bool, **arguments: object) -> None:
    """Try the handler of the spec CONFIG on a few samples, without a bucket.

    Prints the resolved options, the plan, the time for each sample, and the path of a contact
    sheet of the examples. The handler's package can be a working copy (--handler).
    """
    options = TryOptions(**arguments)  # type: ignore[arg-type]  # click made these types
    if watch:
        _try_after_each_change(options)
    elif not try_once(options, lambda: None):
        raise click.exceptions.Exit(3)


def try_once(options: TryOptions, heartbeat: Heartbeat) -> bool:
    """Try the handler; True if no sample failed. Raises DscacheError for invalid arguments."""
    builder = configuration.load(options.builder_config) if options.builder_config else None
    environments = Environments(
        default_home(os.environ) / "environments",
        find_links=[*options.find_links, *(builder.find_links if builder else ())],
        index_url=builder.index_url if builder else "",
    )
    trial = _trial(options, builder, environments, heartbeat)
    click.echo(f"{trial.spec.dataset_name} {trial.spec.handler_version}")
    try:
        return run_trial(trial, _echo, heartbeat)
    except HandlerFailure as failure:
        _echo(f"failed ({failure.kind}): {failure.message}", err=True)
        for text in (failure.traceback, failure.log_tail):
            if text:
                _echo(text.rstrip(), err=True)
        return False
    finally:
        keep_days = builder.environments_keep_days if builder else configuration.KEEP_DAYS
        environments.prune(keep_days * configuration.DAY_S)


def _echo(text: str, *, err: bool = False) -> None:
    """Print what a handler may have written: control characters are spelled out."""
    click.echo(printable(text), err=err)


def _try_after_each_change(options: TryOptions) -> None:
    """Try, wait for a change, try again, until Ctrl-C. A change interrupts the current try."""
    folders = {options.config.absolute().parent}
    if options.handler is not None:
        folders.add(options.handler.absolute())
    with SourceWatch(sorted(folders)) as sources:
        while True:
            try:
                try_once(options, sources.check)
            except SourcesChanged:
                click.echo("changed")
            except DscacheError as error:
                _echo(f"failed: {error}", err=True)
            click.echo("waiting for a change; Ctrl-C ends")
            sources.wait()


def _trial(
    options: TryOptions,
    builder: BuilderConfig | None,
    environments: Environments,
    heartbeat: Heartbeat,
) -> Trial:
    spec = load_spec(options.config)
    source = builder.datasets.get(spec.dataset_name) if builder else None
    if builder and source is None and options.handler is None:
        raise ConfigError(f"{options.builder_config}: no section [datasets.{spec.dataset_name}]")
    raw = options.raw or (source.raw if source else None)
    if raw is None:
        raise UsageError("where is the raw data? Give --raw DIR, or --builder-config FILE")
    return Trial(
        python=_python(options, spec, source, environments, heartbeat),
        spec=spec,
        entry_point=options.entry_point or (source.handler if source else spec.dataset_name),
        raw=raw,
        out=options.out.absolute(),
        samples=options.samples,
        sample_seconds=options.sample_seconds,
    )


def _python(
    options: TryOptions,
    spec: Spec,
    source: DatasetSource | None,
    environments: Environments,
    heartbeat: Heartbeat,
) -> Path:
    if options.handler is not None:
        return environments.ensure_working_copy(options.handler, heartbeat=heartbeat)
    if source is None:
        raise UsageError("which code? Give --handler DIR, or --builder-config FILE")
    lock = environments.resolve(source.source, spec.handler_version, heartbeat=heartbeat)
    return environments.ensure(lock, heartbeat=heartbeat)
