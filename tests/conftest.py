"""Fixtures of the whole suite: one real store for the session, and a bucket of its own per test.

`store` works with root's credentials, so that a test can bring about any state; what is tested
works with `client_config` and `builder_config`, whose users have the policies of `dscache up`.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from dscache.config import Config
from dscache.devstack.build import ensure_binary
from dscache.devstack.localstore import LocalStore
from dscache.store.s3 import Store
from support import measured

BUCKETS = "t-*"
hypothesis.settings.register_profile("dscache", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("dscache")
_serial = itertools.count(1)


@pytest.fixture(scope="session")
def minio_binary() -> Path:
    """The server program: from the cache, or built now. It fails when that is not possible.

    $DSCACHE_TEST_SERVER names another one, to see whether the protocol can work on it.
    """
    if other := os.environ.get("DSCACHE_TEST_SERVER"):
        return Path(other).resolve(strict=True)
    return ensure_binary(os.environ, lambda line: print(line, file=sys.__stderr__, flush=True))


@pytest.fixture(scope="session")
def store_server(
    minio_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalStore]:
    """A running store for the whole session; its users may work in all buckets `t-*`."""
    directory = tmp_path_factory.mktemp("store")
    with LocalStore(directory, minio_binary, bucket="t-session", buckets=BUCKETS) as server:
        yield server


@pytest.fixture
def new_store(minio_binary: Path, tmp_path: Path) -> Iterator[Callable[..., LocalStore]]:
    """Make a store of the test's own, one it may kill and start again: `new_store("name")`."""
    made: list[LocalStore] = []

    def make(name: str = "own-store") -> LocalStore:
        server = LocalStore(tmp_path / name, minio_binary)
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def bucket(store_server: LocalStore) -> str:
    """A fresh, empty bucket."""
    name = f"t-{next(_serial):05d}"
    store_server.create_bucket(name)
    return name


@pytest.fixture
def root_config(store_server: LocalStore, bucket: str, tmp_path: Path) -> Config:
    """Configuration of the store's owner."""
    return store_server.config._replace(bucket=bucket, home=tmp_path / "home")


@pytest.fixture
def client_config(store_server: LocalStore, bucket: str, tmp_path: Path) -> Config:
    """Configuration of the client user."""
    return store_server.client_config._replace(bucket=bucket, home=tmp_path / "home")


@pytest.fixture
def builder_config(store_server: LocalStore, bucket: str, tmp_path: Path) -> Config:
    """Configuration of the builder user."""
    return store_server.builder_config._replace(bucket=bucket, home=tmp_path / "home")


@pytest.fixture
def store(root_config: Config) -> Store:
    """The bucket with every right, for bringing about states and looking at results."""
    return Store(root_config)


@pytest.fixture
def client_store(client_config: Config) -> Store:
    """The bucket as the client user sees it."""
    return Store(client_config)


@pytest.fixture
def builder_store(builder_config: Config) -> Store:
    """The bucket as the builder user sees it."""
    return Store(builder_config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the coverage before pytest's own last words."""
    for line in measured.figures():
        terminalreporter.write_line(line)
