"""Fixtures of the unit tests: an empty local cache and its clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from dscache.cache.cache import Cache
from dscache.cache.home import Home
from support.caches import Clock


@pytest.fixture
def clock() -> Clock:
    """The time that the cache sees."""
    return Clock()


@pytest.fixture
def home(tmp_path: Path, clock: Clock) -> Home:
    """The cache's folder, which is not there yet."""
    return Home(tmp_path / "home", clock)


@pytest.fixture
def cache(home: Home, clock: Clock) -> Cache:
    """The cache in it."""
    return Cache(home.directory, clock=clock)
