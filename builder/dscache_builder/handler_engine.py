"""The daemon's engine: locks in the bucket, environments made by uv, handlers in processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dscache.errors import ConfigError, IntegrityError, PreconditionFailed, SpecError
from dscache.protocol import layout, manifests, markers, registers
from dscache.protocol.manifests import HandlerVersion, Lock
from dscache.spec import Spec
from dscache.store.objects import Objects
from dscache.terminal import logger

from .config import BuilderConfig, DatasetSource
from .engine import Heartbeat, Session
from .environments.environment import Environments, in_use, lock_digest
from .environments.sources import parse_source
from .failure import EnvironmentFailed, HandlerFailure
from .hosting.client import HostClient
from .hosting.messages import Event, HostRequest, PlanSummary
from .scratch import end_of_file, scratch_folder

log = logger("dscache_builder")

LOG_TAIL_BYTES = 64 << 10


@dataclass(frozen=True)
class HostSession:
    """A running handler host with the resolved spec."""

    resolved: Spec
    lock_digest: str
    environment_s: float
    host: HostClient
    log: Path

    def plan(self) -> PlanSummary:
        return self.host.plan()

    def build(self, indices: Iterable[int], may_start: Callable[[], bool]) -> Iterator[Event]:
        return self.host.build(indices, may_start)

    def raw_changes(self, exact: str) -> str:
        return self.host.raw_changes(exact)

    def features(self) -> dict[str, Any]:
        return self.host.features()

    def preview(self, count: int, to: Path) -> str:
        return self.host.preview(count, to)

    def log_tail(self) -> str:
        return end_of_file(self.log, LOG_TAIL_BYTES)


class _Running(NamedTuple):
    """A handler host, the lock of its environment, and the file of its output."""

    lock: Lock
    host: HostClient
    log: Path


class HandlerEngine:
    """Opens specs for the daemon and for `verify`."""

    def __init__(self, config: BuilderConfig, store: Objects, environments: Environments) -> None:
        self._config = config
        self._store = store
        self._environments = environments

    @contextmanager
    def open(self, spec: Spec, heartbeat: Heartbeat) -> Iterator[Session]:
        with ExitStack() as stack:
            with _as_failures():
                session = self._opened(spec, heartbeat, stack)
            yield session

    def _opened(self, spec: Spec, heartbeat: Heartbeat, stack: ExitStack) -> HostSession:
        started = time.monotonic()
        source = self._source(spec)
        running = None
        while running is None:
            running = self._started(spec, source, heartbeat, stack)
        description = running.host.describe()
        resolved = Spec.of(
            spec.dataset_name, spec.handler_version, description.config, spec.dataset_revision
        )
        environment_s = time.monotonic() - started
        digest = lock_digest(running.lock)
        return HostSession(resolved, digest, environment_s, running.host, running.log)

    def _started(
        self, spec: Spec, source: DatasetSource, heartbeat: Heartbeat, stack: ExitStack
    ) -> _Running | None:
        """Start the handler, and write the version's lock if there is none.

        A lock applies to all builders, so it is written only when the handler was found in its
        environment. None: another builder wrote one meanwhile; that one applies, so start again.
        """
        known, etag = markers.read_handler_version(
            self._store, spec.dataset_name, spec.handler_version
        )
        lock = self._lock(spec, source, known, heartbeat)
        with ExitStack() as opened:
            python = self._environments.ensure(lock, heartbeat=heartbeat)
            opened.enter_context(in_use(python))
            scratch = opened.enter_context(scratch_folder(self._config.scratch))
            request = self._host_request(spec, source, scratch)
            host = opened.enter_context(HostClient(python, request, heartbeat=heartbeat))
            locked = known is not None and known.lock is not None
            with _naming_the_source(spec, lock, locked=locked):
                options = host.options()
            if not locked and not self._write_lock(spec, lock, options, known, etag):
                return None
            stack.enter_context(opened.pop_all())
            return _Running(lock, host, request.log)

    def _source(self, spec: Spec) -> DatasetSource:
        source = self._config.datasets.get(spec.dataset_name)
        if source is None:
            known = ", ".join(sorted(self._config.datasets)) or "none"
            raise HandlerFailure(
                "request",
                f"this builder does not make dataset_name {spec.dataset_name!r} (it makes: "
                f"{known}); check the name, or add [datasets.{spec.dataset_name}] to builder.toml",
            )
        if not source.raw.is_dir():
            raise HandlerFailure(
                "raw-data",
                f"the raw data of {spec.dataset_name!r} is missing: {source.raw} is not a folder "
                f"on the builder; mount it, or correct `raw` in [datasets.{spec.dataset_name}]",
            )
        return source

    def _lock(
        self,
        spec: Spec,
        source: DatasetSource,
        known: HandlerVersion | None,
        heartbeat: Heartbeat,
    ) -> Lock:
        """The lock of this version, or a new one if it has none."""
        if known is None or known.lock is None:
            log.debug("%s %s: no lock yet, resolving", spec.dataset_name, spec.handler_version)
            return self._environments.resolve(
                source.source, spec.handler_version, heartbeat=heartbeat
            )
        lock = known.lock
        configured = parse_source(source.source, spec.handler_version).text
        if lock.source != configured:  # the configuration decides which code runs, not the bucket
            raise EnvironmentFailed(
                f"{layout.lock(spec.dataset_name, spec.handler_version)} was locked from "
                f"{lock.source}, but this builder's source is {configured}; a version must mean "
                "the same code everywhere: release another version, or correct `source` in "
                f"[datasets.{spec.dataset_name}] of builder.toml; if {lock.source} was the "
                f"mistake, run {_unlock(spec)}"
            )
        return lock

    def _write_lock(
        self,
        spec: Spec,
        lock: Lock,
        options: dict[str, Any],
        known: HandlerVersion | None,
        etag: str | None,
    ) -> bool:
        """Write the lock over the value that was read; False if another builder was faster."""
        version = HandlerVersion(
            dataset_name=spec.dataset_name,
            handler_version=spec.handler_version,
            lock=lock,
            options=options,
            resolved_at=self._store.now(),
            unlocked=known.unlocked if known else None,
        )
        name = layout.lock(spec.dataset_name, spec.handler_version)
        try:
            registers.write(self._store, name, manifests.encode(version), if_match=etag)
        except PreconditionFailed:
            log.debug("%s: another builder was faster", name)
            return False
        log.info("%s: locked from %s", name, lock.source)
        return True

    def _host_request(self, spec: Spec, source: DatasetSource, scratch: Path) -> HostRequest:
        return HostRequest(
            entry_point=source.handler,
            dataset_name=spec.dataset_name,
            config=spec.dataset_config,
            raw=source.raw,
            scratch=scratch,
            log=scratch / "handler.log",
            workers=self._config.workers,
            memory_bytes=source.memory_bytes,
            sample_seconds=source.sample_seconds,
            max_bad_samples=source.max_bad_samples,
        )


def _unlock(spec: Spec) -> str:
    return f"`dscache admin unlock {spec.dataset_name} {spec.handler_version}`"


@contextmanager
def _naming_the_source(spec: Spec, lock: Lock, *, locked: bool) -> Iterator[None]:
    """Say where a handler was looked for that is not there, or whose module raises an error."""
    try:
        yield
    except HandlerFailure as failure:
        if failure.kind not in ("environment", "handler"):
            raise
        then = f", and run {_unlock(spec)}" if locked else ""
        raise HandlerFailure(
            failure.kind,
            f"{lock.source}: {failure.message}; correct `source` or `handler` in "
            f"[datasets.{spec.dataset_name}] of builder.toml{then}",
            failure.sample,
            failure.traceback,
            failure.log_tail,
        ) from failure


@contextmanager
def _as_failures() -> Iterator[None]:
    """Turn errors that every attempt would meet into failures, which clients get."""
    try:
        yield
    except SpecError as error:
        raise HandlerFailure("options", f"the handler's resolved options: {error}") from error
    except (IntegrityError, ConfigError) as error:
        raise HandlerFailure("environment", str(error)) from error
    except OSError as error:
        raise HandlerFailure("disk", f"the builder cannot use its own files: {error}") from error
