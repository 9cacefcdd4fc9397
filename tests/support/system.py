"""Fixtures for tests of whole programs: handler packages, environments, raw data, builders, hosts.

A conftest imports those it offers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dscache.config import Config
from dscache_builder.environments.environment import Environments
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import HostRequest
from support.counting import counting, write_numbers
from support.deadly import DEADLY
from support.greedy import GREEDY
from support.packages import own_wheels
from support.running import Builder, idle, write_builder_toml
from support.troubles import PLAIN, TROUBLES, write_samples
from support.unruly import UNRULY


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of the SDK, of our handlers, and of the handler packages for tests."""
    folder = own_wheels(tmp_path_factory.mktemp("wheelhouse"))
    for package in (
        counting(),
        counting("2.0.0", factor=100),
        TROUBLES,
        PLAIN,
        GREEDY,
        DEADLY,
        UNRULY,
    ):
        package.wheel(tmp_path_factory.mktemp(package.name), folder)
    return folder


@pytest.fixture(scope="session")
def shared_environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments made once for the session."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Raw data for `counting`: six samples."""
    return write_numbers(tmp_path / "numbers", 6)


@pytest.fixture
def new_builder(
    builder_config: Config,
    numbers: Path,
    wheelhouse: Path,
    shared_environments: Path,
    tmp_path: Path,
) -> Iterator[Callable[..., Builder]]:
    """Make a builder that is not started yet: `new_builder("a", datasets={…}, workers=2)`."""
    made: list[Builder] = []
    usual = {
        "counting": {
            "handler": "counting", "raw": str(numbers), "source": "counting=={version}",
        },
    }  # fmt: skip

    def make(
        name: str = "builder", *, datasets: dict[str, Any] | None = None, **settings: Any
    ) -> Builder:
        folder = tmp_path / name
        toml = write_builder_toml(
            folder, builder_config, datasets or usual, wheelhouse, shared_environments, **settings
        )
        made.append(Builder(toml, folder / "builder.log"))
        return made[-1]

    yield make
    for builder in made:
        if builder.process is not None and builder.process.poll() is None:
            builder.stop()


@pytest.fixture(scope="session")
def pythons(wheelhouse: Path, shared_environments: Path) -> Callable[[str], Path]:
    """The interpreter of the environment of a package: `pythons("troubles")`."""
    environments = Environments(shared_environments, find_links=[str(wheelhouse)])

    @functools.cache
    def python(name: str) -> Path:
        lock = environments.resolve(name + "=={version}", "1.0.0", heartbeat=idle)
        return environments.ensure(lock, heartbeat=idle)

    return python


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., HostRequest]:
    """A request with a scratch folder of its own."""
    count = iter(range(100))

    def make(entry_point: str, raw: Path, **changes: Any) -> HostRequest:
        scratch = tmp_path / f"scratch-{next(count)}"
        request = HostRequest(
            entry_point=entry_point,
            dataset_name=entry_point,
            config={},
            raw=raw,
            scratch=scratch,
            log=scratch / "handler.log",
            workers=1,
        )
        return replace(request, **changes)

    return make


@pytest.fixture
def troubles(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> Callable[..., contextlib.AbstractContextManager[HostClient]]:
    """A host of the troubles handler: `troubles({"a.txt": "raises"}, max_bad_samples=1)`."""

    def start(words: dict[str, str], **changes: Any) -> HostClient:
        raw = write_samples(tmp_path / "raw", words)
        request = request_for("troubles", raw, **changes)
        return HostClient(pythons("troubles"), request, heartbeat=idle)

    return start
