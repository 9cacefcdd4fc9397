"""Fixtures of the system tests: handler packages, environments, raw data, builders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dscache.config import Config
from support.counting import counting, write_numbers
from support.packages import own_wheels
from support.running import Builder, write_builder_toml
from support.troubles import PLAIN, TROUBLES


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of the SDK, of our handlers, and of the handler packages for tests."""
    folder = own_wheels(tmp_path_factory.mktemp("wheelhouse"))
    for package in (counting(), counting("2.0.0", factor=100), TROUBLES, PLAIN):
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
