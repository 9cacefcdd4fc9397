"""The daemon's engine: locks in the bucket, environments made by uv, handlers in processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dscache.errors import ConfigError, IntegrityError, PreconditionFailed, SpecError
from dscache.protocol import layout, manifests, markers
from dscache.protocol.manifests import HandlerVersion, Lock
from dscache.spec import Spec
from dscache.store.objects import Objects

from .config import BuilderConfig, DatasetSource
from .engine import Heartbeat, Session
from .environments.environment import Environments, in_use, lock_digest
from .environments.sources import parse_source
from .failure import EnvironmentFailed, HandlerFailure
from .hosting.client import HostClient
from .hosting.messages import Event, HostRequest, PlanSummary
from .scratch import scratch_folder

log = logging.getLogger("dscache_builder")

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

    def features(self) -> dict[str, Any]:
        return self.host.features()

    def preview(self, count: int, to: Path) -> str:
        return self.host.preview(count, to)

    def log_tail(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")


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
        lock = self._lock(spec, source, heartbeat)
        python = self._environments.ensure(lock, heartbeat=heartbeat)
        stack.enter_context(in_use(python))
        scratch = stack.enter_context(scratch_folder(self._config.scratch))
        request = self._host_request(spec, source, scratch)
        host = stack.enter_context(HostClient(python, request, heartbeat=heartbeat))
        description = host.describe()
        resolved = Spec.of(
            spec.dataset_name, spec.handler_version, description.config, spec.dataset_revision
        )
        self._record_options(spec, description.options)
        environment_s = time.monotonic() - started
        return HostSession(resolved, lock_digest(lock), environment_s, host, request.log)

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

    def _lock(self, spec: Spec, source: DatasetSource, heartbeat: Heartbeat) -> Lock:
        """The lock of this version. The first resolution, by any builder, applies to all."""
        name = layout.lock(spec.dataset_name, spec.handler_version)
        version, _ = markers.read_handler_version(
            self._store, spec.dataset_name, spec.handler_version
        )
        if version is None:
            log.debug("%s: no lock yet, resolving", name)
            lock = self._environments.resolve(
                source.source, spec.handler_version, heartbeat=heartbeat
            )
            version = HandlerVersion(
                dataset_name=spec.dataset_name,
                handler_version=spec.handler_version,
                lock=lock,
                resolved_at=self._store.now(),
            )
            try:
                self._store.put(name, manifests.encode(version), if_none_match=True)
                return lock
            except PreconditionFailed:
                version, _ = markers.read_handler_version(
                    self._store, spec.dataset_name, spec.handler_version
                )
                assert version is not None, "handler versions are never deleted"
        lock = version.lock
        configured = parse_source(source.source, spec.handler_version).text
        if lock.source != configured:  # the configuration decides which code runs, not the bucket
            raise EnvironmentFailed(
                f"{name} was locked from {lock.source}, but this builder's source is {configured}; "
                "a version must mean the same code everywhere: release another version, or correct "
                f"`source` in [datasets.{spec.dataset_name}]"
            )
        return lock

    def _record_options(self, spec: Spec, options: dict[str, Any]) -> None:
        """Store the options' schema beside the lock once, for clients."""
        name = layout.lock(spec.dataset_name, spec.handler_version)
        version, etag = markers.read_handler_version(
            self._store, spec.dataset_name, spec.handler_version
        )
        if version is None or version.options or not options:
            return
        version.options = options
        try:
            self._store.put(name, manifests.encode(version), if_match=etag)
        except PreconditionFailed:
            return  # another builder wrote the same schema

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
