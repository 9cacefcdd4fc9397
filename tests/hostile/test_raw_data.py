"""Whatever a handler returns: nothing outside of its build's own folder is moved or deleted."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dscache import Dataset
from dscache.config import Config
from dscache_builder.environments.environment import Environments
from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import HostRequest, ShardBuilt
from dscache_builder.scratch import SETTLED_S, remove_left_over
from support.running import Builder, dscache, idle, write_spec

pytestmark = [pytest.mark.store, pytest.mark.system]


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Name and content of every file in a folder, which must not be empty."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files
    return files


@pytest.mark.parametrize("how", ["absolute", "relative", "linked folder", "hard link"])
def test_ready_made_files_of_the_raw_data_are_read_and_stay(
    how: str,
    records: Path,
    new_builder: Callable[..., Builder],
    client_config: Config,
    tmp_path: Path,
) -> None:
    before = bytes_below(records)
    source = {"handler": "greedy", "raw": str(records), "source": "greedy=={version}"}
    builder = new_builder(datasets={"greedy": source}).start()
    ran = dscache(client_config, "get", str(write_spec(tmp_path / "cfg.json", "greedy", how=how)))
    assert ran.code == 0, ran.err
    assert [example["number"] for example in Dataset(ran.out.strip())] == [0, 1]
    assert builder.stop() == 0
    assert bytes_below(records) == before


def test_files_from_elsewhere_are_refused_and_named(
    records: Path,
    pythons: Callable[[str], Path],
    request_for: Callable[..., HostRequest],
) -> None:
    elsewhere = records.parent / "elsewhere"
    shutil.copytree(records, elsewhere)
    request = request_for("greedy", records, config={"how": "elsewhere"})
    with HostClient(pythons("greedy"), request, heartbeat=idle) as host:
        host.describe()
        host.plan()
        with pytest.raises(HandlerFailure, match=str(elsewhere)) as failure:
            list(host.build([], lambda: True))
    assert failure.value.kind == "handler"
    assert bytes_below(elsewhere) == bytes_below(records)


def test_shards_lie_in_the_scratch_folder_whatever_is_returned(
    records: Path,
    pythons: Callable[[str], Path],
    request_for: Callable[..., HostRequest],
) -> None:
    """The builder deletes a shard's file when it has been uploaded."""
    request = request_for("greedy", records, config={"how": "absolute"})
    with HostClient(pythons("greedy"), request, heartbeat=idle) as host:
        host.describe()
        host.plan()
        built = [e for e in host.build([], lambda: True) if isinstance(e, ShardBuilt)]
    assert [shard.path.parent for shard in built] == [request.scratch / "shards"] * 2


def test_folders_of_others_in_the_scratch_folder_stay(tmp_path: Path) -> None:
    """`scratch` of builder.toml may be a folder that somebody else uses too."""
    other = tmp_path / "build-2024"
    other.mkdir()
    (other / "thesis.txt").write_text("It was a dark and stormy night")
    long_ago = time.time() - 10 * SETTLED_S
    os.utime(other, (long_ago, long_ago))
    remove_left_over(tmp_path, time.time())
    assert (other / "thesis.txt").is_file()


def test_environments_of_others_stay(tmp_path: Path) -> None:
    """`state` of builder.toml may be a folder in which somebody keeps environments."""
    other = tmp_path / "environments" / "my-env"
    other.mkdir(parents=True)
    (other / "pyvenv.cfg").write_text("home = /usr/bin\n")
    os.utime(other, (0, 0))
    assert Environments(tmp_path / "environments").prune(0.0) == []
    assert (other / "pyvenv.cfg").is_file()
