"""A local store that was interrupted while it started is made whole by the next start."""

from __future__ import annotations

from pathlib import Path

from dscache.devstack.localstore import LocalStore
from dscache.store.s3 import Store


def test_a_start_that_was_interrupted_before_the_users_were_made(
    minio_binary: Path, tmp_path: Path
) -> None:
    interrupted = LocalStore(tmp_path / "store", minio_binary)
    interrupted._start_server()
    with LocalStore(tmp_path / "store", minio_binary) as server:
        assert server.pid == interrupted.pid
        assert Store(server.client_config).get("datasets/nothing") is None
        assert list(Store(server.builder_config).entries("builds/")) == []
