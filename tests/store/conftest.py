"""Fixtures of the store tests: a network that breaks where it is told to, and small datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dscache.cache.cache import Cache
from dscache.config import Config
from dscache.store.s3 import Store
from support.datasets import example_files
from support.faultproxy import FaultProxy


@pytest.fixture
def proxy(client_config: Config) -> Iterator[FaultProxy]:
    """A proxy before the store."""
    with FaultProxy(client_config.require_endpoint()) as proxy:
        yield proxy


@pytest.fixture
def via(client_config: Config, proxy: FaultProxy) -> Store:
    """The bucket as the client user sees it through the proxy."""
    return Store(client_config._replace(endpoint=proxy.url))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A small dataset with two splits."""
    return example_files(tmp_path, {"train": [3, 4, 5], "val": [2]})


@pytest.fixture
def cache(client_config: Config) -> Cache:
    """The client's local cache, empty."""
    return Cache(client_config.home)
