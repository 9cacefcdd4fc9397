"""Bring a local store and builder up.

Everything a stack owns is in one directory: data, credentials, logs, the builder's state, and the
record of what was started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import Config, user_file
from . import binaries, builderfile, elsewhere, folder, process, profile, program, record, wheels
from .localstore import LocalStore

Say = Callable[[str], None]


@dataclass(frozen=True)
class StackOptions:
    """What `dscache up` was asked for. `raw` is dataset_name → directory."""

    directory: Path
    profile: str = "local"
    builder: bool = True
    raw: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """The store of a stack: as clients and the builder see it, and `own` when it was started."""

    client: Config
    builder: Config
    own: LocalStore | None


@dataclass(frozen=True)
class StackReport:
    """What runs after `up`. `changed` says what this run did; empty when all was there already.

    `builder` is its state in words. `default` tells whether plain `dscache get` uses this store.
    """

    directory: Path
    place: Place
    profile: str
    user_file: Path
    builder: str
    builder_pid: int | None
    default: bool
    changed: list[str]


def up(options: StackOptions, environ: Mapping[str, str], say: Say) -> StackReport:
    """Start whatever does not run yet and say what runs. Safe to repeat. Raises DscacheError."""
    changed: list[str] = []
    with folder.locked(options.directory):
        place = _store(options, environ, say, changed)
        if place.own and profile.ensure(user_file(environ), options.profile, place.client):
            changed.append(f"profile {options.profile!r} written")
        builder = _builder(options, place.builder, environ, say, changed)
        started = record.read_record(options.directory).builder
    return StackReport(
        directory=options.directory,
        place=place,
        profile=options.profile if place.own else place.client.profile,
        user_file=user_file(environ),
        builder=builder,
        builder_pid=started.pid if started and process.alive(started) else None,
        default=elsewhere.is_default(place.client.endpoint, environ),
        changed=changed,
    )


def _store(
    options: StackOptions, environ: Mapping[str, str], say: Say, changed: list[str]
) -> Place:
    """The configured store where one answers, else the stack's own, started if need be."""
    own = LocalStore(options.directory, Path())
    found = elsewhere.configured(options.profile, own.endpoint, environ)
    if found:
        return Place(found, found, None)
    before = own.endpoint
    kept = record.read_record(options.directory)
    kept.profile = options.profile
    if not own.running:
        own.binary = binaries.choose(kept, environ, say)
        changed.append("store started")
    record.write_record(options.directory, kept)
    own.start()
    file = options.directory / folder.BUILDER_FILE
    if file.is_file() and builderfile.follow(file, before, own.endpoint):
        changed.append(f"{file} follows the store to {own.endpoint}")
    return Place(own.client_config, own.builder_config, own)


def _builder(
    options: StackOptions, store: Config, environ: Mapping[str, str], say: Say, changed: list[str]
) -> str:
    """Start the builder if it is wanted and does not run; its state in words."""
    directory, file = options.directory, options.directory / folder.BUILDER_FILE
    kept = record.read_record(directory)
    if not options.builder:
        return "running" if process.alive(kept.builder) else "not wanted"
    projects = wheels.projects()
    if not file.is_file():
        builderfile.write_new(
            file,
            state=directory / "builder",
            wheels=directory / "wheels" if projects else None,
            store=store,
        )
    added = builderfile.add_datasets(file, options.raw)
    if not builderfile.datasets(file):
        return "not started: no raw data yet; run `dscache up --raw photos=DIR`"
    if process.alive(kept.builder) and not added:
        return "running"
    if program.stop(kept.builder):
        say("the builder is started again, to know the new datasets")
    wheels.build(projects, directory / "wheels", environ, directory / folder.WHEELS_LOG)
    changed.append("builder started")
    return _start_builder(directory, file, environ)


def _start_builder(directory: Path, file: Path, environ: Mapping[str, str]) -> str:
    log = directory / folder.BUILDER_LOG

    def remember(started: process.Process) -> None:
        kept = record.read_record(directory)
        kept.builder = started
        record.write_record(directory, kept)

    ready = program.start(file, log, environ, remember)
    return "running" if ready else f"started, but not ready yet; see {log}"
