"""A separate store and builder for the benchmarks, on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.harness import cpu_of, processes_below, rss_of
from dscache.config import Config
from dscache.devstack import wheels
from dscache.devstack.build import ensure_binary
from dscache.devstack.localstore import LocalStore
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Checkpoint
from dscache.store.notifications import Connected, Created, Listener, Signal
from dscache.store.s3 import Store

UP_S = 30.0
SAMPLE_S = 0.05  # interval at which processes are sampled
SPEED = """
import itertools
import os
import time

import msgspec
from dscache_sdk import DatasetHandler, Image, Sample


class Speed(DatasetHandler, name="speed"):
    \"\"\"Records that look like JPEG; logs when samples start and end.\"\"\"

    class Options(msgspec.Struct, kw_only=True):
        examples: int = 10
        bytes: int = 200_000
        batch_size: int | None = 64
        work_ms: int = 0
        run: int = 0

    features = {"image": Image("jpeg")}

    def samples(self):
        for number in range(self.options.examples):
            yield Sample(f"{number:08d}")

    def load(self, sample):
        with open(f"{self.base_data_path}/times-{os.getpid()}", "a") as times:
            times.write(f"{time.time()}\\n")

    def example(self, loaded, sample, rng):
        until = time.perf_counter() + self.options.work_ms / 1000
        while time.perf_counter() < until:
            pass
        record = b"\\xff\\xd8\\xff" + rng.bytes(self.options.bytes)
        with open(f"{self.base_data_path}/times-{os.getpid()}", "a") as times:
            times.write(f"{time.time()}\\n")
        return {"image": record}
"""
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "speed"
version = "1.0.0"
dependencies = ["dscache-sdk"]
[project.entry-points."dscache.handlers"]
speed = "speed:Speed"
[tool.hatch.build.targets.wheel]
include = ["speed.py"]
"""


@dataclass
class Usage:
    """CPU seconds and peak resident bytes of the builder and of the processes below it."""

    builder_cpu_s: float = 0.0
    handler_cpu_s: float = 0.0
    builder_rss: int = 0
    handler_rss: int = 0


@dataclass
class Stack:
    """A running store, and a builder with its builder.toml."""

    folder: Path
    server: LocalStore
    toml: Path
    raw: Path
    process: subprocess.Popen[bytes] | None = None
    _serial: list[int] = field(default_factory=lambda: [0])

    @property
    def client(self) -> Config:
        """The configuration of a client with an empty cache."""
        self._serial[0] += 1
        return self.server.client_config._replace(home=self.folder / f"home{self._serial[0]}")

    @property
    def version(self) -> str:
        """The version of the checkout's handlers when the stack was made."""
        (wheel,) = (self.folder / "wheels").glob("dataset_handlers-*.whl")
        return wheel.name.split("-")[1]

    @property
    def store(self) -> Store:
        """The bucket, with full access."""
        return Store(self.server.config)

    def start_builder(self) -> None:
        """Start the builder and wait until it listens."""
        log = self.folder / "builder.log"
        log.write_bytes(b"")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dscache_builder", "--config", str(self.toml)],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + UP_S
        while "listening" not in log.read_text():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"the builder does not start:\n{log.read_text()}")
            time.sleep(0.02)

    def stop_builder(self) -> None:
        """Stop the builder."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(40)

    def spec(self, name: str, version: str, options: Mapping[str, Any]) -> Path:
        """Write a config file and return its path."""
        self._serial[0] += 1
        path = self.folder / f"spec{self._serial[0]}.json"
        document = {"dataset_name": name, "handler_version": version, "dataset_config": options}
        path.write_text(json.dumps(document))
        return path

    def settle(self) -> None:
        """Wait until the builder holds no claim, so that its work after the answer is done."""
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline:
            names = [entry.name for entry in self.store.entries(layout.BUILDS)]
            stored = [self.store.get(name) for name in names]
            claims = [manifests.decode(each.body, Checkpoint, where="") for each in stored if each]
            if not any(claim.owner for claim in claims):
                return
            time.sleep(0.05)
        raise SystemExit("the builder does not release its claims")

    @contextlib.contextmanager
    def watched(self) -> Iterator[Usage]:
        """Measure what the builder uses within the block."""
        assert self.process is not None
        with watching(self.process.pid) as usage:
            yield usage


@contextlib.contextmanager
def own_store() -> Iterator[tuple[Path, LocalStore]]:
    """Yield a temporary folder and a running store; both are removed afterwards."""
    binary = ensure_binary(os.environ, lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="dscache-bench-") as name:
        folder = Path(name)
        with LocalStore(folder / "store", binary) as server:
            yield folder, server


def client_environ(config: Config) -> dict[str, str]:
    """Return the environment of a client process with only this configuration."""
    hidden = ("DSCACHE_", "AWS_", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    return {
        **kept,
        "DSCACHE_ENDPOINT": config.endpoint,
        "DSCACHE_BUCKET": config.bucket,
        "DSCACHE_ACCESS_KEY": config.access_key,
        "DSCACHE_SECRET_KEY": config.secret_key,
        "DSCACHE_HOME": str(config.home),
        "DSCACHE_CONFIG": os.devnull,
    }


@contextlib.contextmanager
def stack(raw: Mapping[str, Path], workers: int = 2) -> Iterator[Stack]:
    """Yield a running store and builder, with wheels of this checkout's handlers."""
    with own_store() as (folder, server):
        links = folder / "wheels"
        wheels.build(
            [*wheels.projects(), _speed(folder / "speed")], links, os.environ, folder / "wheels.log"
        )
        times = folder / "times"
        times.mkdir()
        toml = _builder_toml(folder, server, {**raw, "speed": times}, links, workers)
        made = Stack(folder, server, toml, times)
        try:
            made.start_builder()
            yield made
        finally:
            made.stop_builder()


def _speed(folder: Path) -> Path:
    folder.mkdir()
    (folder / "speed.py").write_text(SPEED)
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


def _builder_toml(
    folder: Path, server: LocalStore, raw: Mapping[str, Path], links: Path, workers: int
) -> Path:
    config = server.builder_config
    document = {
        "state": str(folder / "state"),
        "find_links": [str(links)],
        "workers": workers,
        "store": {
            "endpoint": config.endpoint,
            "bucket": config.bucket,
            "access_key": config.access_key,
            "secret_key": config.secret_key,
        },
        "datasets": {
            name: {
                "handler": name,
                "raw": str(path),
                "source": f"{'speed' if name == 'speed' else 'dataset-handlers'}=={{version}}",
            }
            for name, path in raw.items()
        },
    }
    path = folder / "builder.toml"
    path.write_text(tomli_w.dumps(document))
    return path


@contextlib.contextmanager
def watching(pid: int) -> Iterator[Usage]:
    """Sample the CPU time and memory of a process and its descendants."""
    usage, stop = Usage(), threading.Event()
    before = cpu_of(pid) or 0.0
    thread = threading.Thread(target=_watch, args=(pid, before, usage, stop))
    thread.start()
    try:
        yield usage
    finally:
        stop.set()
        thread.join()


def _watch(pid: int, before: float, usage: Usage, stop: threading.Event) -> None:
    seen: dict[int, float] = {}
    ended = False
    while not ended:
        ended = stop.wait(SAMPLE_S)
        below = processes_below(pid)
        for each in below:
            seen[each] = cpu_of(each) or seen.get(each, 0.0)
        usage.handler_cpu_s = sum(seen.values())
        usage.builder_cpu_s = (cpu_of(pid) or before) - before
        usage.builder_rss = max(usage.builder_rss, rss_of(pid))
        usage.handler_rss = max(usage.handler_rss, sum(map(rss_of, below)))


class Ready:
    """Records when a listener learns of the ready marker of a key."""

    def __init__(self, config: Config, key: str) -> None:
        self._name = layout.ready(key)
        self._connected, self._ready = threading.Event(), threading.Event()
        self._listener = Listener(config, layout.objects_of(key), self._take)
        self.at = 0.0
        self.failed = False

    def __enter__(self) -> Ready:
        self._listener.start()
        if not self._connected.wait(UP_S):
            raise SystemExit("no notifications from the store")
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.stop()

    def _take(self, signal: Signal) -> None:
        if isinstance(signal, Connected):
            self._connected.set()
        elif isinstance(signal, Created) and (
            signal.name == self._name or ".failed." in signal.name
        ):
            self.at = time.time()
            self.failed = signal.name != self._name
            self._ready.set()

    def wait(self, limit_s: float = 600.0) -> float:
        """Wait; return the Unix time of the notification."""
        if not self._ready.wait(limit_s) or self.failed:
            raise SystemExit(f"{self._name}: not built; see the builder's log")
        return self.at
