"""Start a local store and builder.

Everything that belongs to a stack is in one directory: data, credentials, logs, the builder's
state, and the record of what was started.
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
    """The options of `dscache up`. `raw` is dataset_name → directory."""

    directory: Path
    profile: str = "local"
    builder: bool = True
    raw: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """The store of a stack: configurations of its users, and `own` if it is the stack's own."""

    client: Config
    builder: Config
    own: LocalStore | None


@dataclass(frozen=True)
class StackReport:
    """What runs after `up`.

    Attributes:
        directory: the stack's directory.
        place: the store.
        profile: name of the profile for the store.
        user_file: the configuration file.
        builder: state of the builder, in words.
        builder_pid: process id of the builder; None if it does not run.
        default: whether `dscache get` without options uses this store.
        changed: what this run did; empty if everything was running already.
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
    """Start what is not running, and report what runs. Safe to repeat. Raises DscacheError."""
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
    """Return the configured store if it answers, else the stack's own, started if necessary."""
    own = LocalStore(options.directory, Path())
    configured = elsewhere.configured(options.profile, own.endpoint, environ)
    if configured:
        return Place(configured, configured, None)
    old_endpoint = own.endpoint
    stored = record.read_record(options.directory)
    stored.profile = options.profile
    if not own.running:
        own.binary = binaries.choose(stored, environ, say)
        changed.append("store started")
    record.write_record(options.directory, stored)
    own.start()
    file = options.directory / folder.BUILDER_FILE
    if file.is_file() and builderfile.replace_endpoint(file, old_endpoint, own.endpoint):
        changed.append(f"{file}: endpoint changed to {own.endpoint}")
    return Place(own.client_config, own.builder_config, own)


def _builder(
    options: StackOptions, store: Config, environ: Mapping[str, str], say: Say, changed: list[str]
) -> str:
    """Start the builder if it is wanted and not running; return its state in words."""
    directory, file = options.directory, options.directory / folder.BUILDER_FILE
    stored = record.read_record(directory)
    if not options.builder:
        return "running" if process.alive(stored.builder) else "not started (--no-builder)"
    projects = wheels.projects()
    if not file.is_file():
        builderfile.write_new(
            file,
            state=directory / "builder",
            wheels=directory / "wheels" if projects else None,
            store=store,
        )
    added = builderfile.add_datasets(file, options.raw)
    for warning in builderfile.missing_handlers(file):
        say(warning)
    if not builderfile.datasets(file):
        return "not started: no raw data yet; run `dscache up --raw NAME=DIR`"
    if process.alive(stored.builder) and not added:
        return "running"
    if program.stop(stored.builder):
        say("restarting the builder, which has new datasets")
    wheels.build(projects, directory / "wheels", environ, directory / folder.WHEELS_LOG)
    changed.append("builder started")
    return _start_builder(directory, file, environ)


def _start_builder(directory: Path, file: Path, environ: Mapping[str, str]) -> str:
    log = directory / folder.BUILDER_LOG

    def remember(started: process.Process) -> None:
        stored = record.read_record(directory)
        stored.builder = started
        record.write_record(directory, stored)

    ready = program.start(file, log, environ, remember)
    return "running" if ready else f"started, but not ready yet; see {log}"
