"""The main job on real processes: a config in, a dataset out."""

from __future__ import annotations

import asyncio
import json
import subprocess
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

import dscache as package
from dscache import Client
from dscache.config import Config
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Alias, Checkpoint
from dscache.spec import load_spec
from dscache.store.s3 import Store
from support.counting import loads
from support.datasets import live_of
from support.running import (
    Builder,
    client_environ,
    dscache,
    start_dscache,
    wait_until,
    write_spec,
)

NewBuilder = Callable[..., Builder]


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    """A config that names all options, so that it resolves to itself."""
    return write_spec(tmp_path / "cfg.json", "counting", batch_size=1, padding=10, limit=1000)


def test_get_builds_once_and_then_hits(
    new_builder: NewBuilder, client_config: Config, store: Store, cfg: Path, numbers: Path
) -> None:
    new_builder().start()
    first = dscache(client_config, "get", str(cfg))
    assert first.code == 0, first.err
    path = Path(first.out.strip())
    assert first.out == f"{path}\n"
    assert path.is_dir()
    key = load_spec(cfg).key
    assert path.name == key
    names = {file.name for file in path.iterdir()}
    assert {"dataset_info.json", "features.json"} <= names
    assert sum("tfrecord" in name for name in names) == 6

    found = package.Dataset(path)
    assert sorted(int(example["number"]) for example in found) == list(range(6))
    assert sorted(set(loads(numbers))) == sorted(f"{n:03d}.txt" for n in range(6))

    # the hit: no store at all
    again = dscache(client_config, "get", str(cfg), DSCACHE_ENDPOINT="http://127.0.0.1:1")
    assert (again.code, again.out, again.err) == (0, first.out, "")

    # at rest: requests answered, claim released, one complete zip
    left = [entry.name for entry in store.entries(layout.REQUESTS)]
    wait_until(lambda: not list(store.entries(layout.REQUESTS)), f"requests answered: {left}")

    def owner() -> str:
        claim = store.get(layout.claim(key))
        assert claim is not None
        return manifests.decode(claim.body, Checkpoint, where="").owner

    wait_until(lambda: owner() == "", "claim released")
    archive = store.get(live_of(store, key).zip_key, limit_bytes=1 << 30)
    assert archive is not None
    with zipfile.ZipFile(BytesIO(archive.body)) as zipped:
        assert zipped.testzip() is None


def test_unzip_accepts_the_zip(
    new_builder: NewBuilder, client_config: Config, store: Store, cfg: Path, tmp_path: Path
) -> None:
    new_builder().start()
    assert dscache(client_config, "get", str(cfg)).code == 0
    archive = store.get(live_of(store, load_spec(cfg).key).zip_key, limit_bytes=1 << 30)
    assert archive is not None
    file = tmp_path / "dataset.zip"
    file.write_bytes(archive.body)
    done = subprocess.run(["unzip", "-t", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No errors detected" in done.stdout


def test_twenty_processes_cause_one_build(
    new_builder: NewBuilder, client_config: Config, store: Store, cfg: Path, numbers: Path
) -> None:
    """Twenty machines (each with a cache of its own) ask for the same new config."""
    homes = [client_config.home / f"machine{i}" for i in range(20)]
    (numbers / "000.hold").touch()
    builder = new_builder(workers=2).start()
    waiting = [start_dscache(client_config, "get", str(cfg), DSCACHE_HOME=str(h)) for h in homes]
    key = load_spec(cfg).key
    wait_until(lambda: len(list(store.entries(layout.requests_of(key)))) == 20, "twenty requests")
    (numbers / "000.hold").unlink()
    results = [process.communicate(timeout=100) for process in waiting]
    assert [process.returncode for process in waiting] == [0] * 20, results
    folders = [Path(out.strip()) for out, _ in results]
    contents = [
        {file.name: file.read_bytes() for file in folder.iterdir() if "tfrecord" in file.name}
        for folder in folders
    ]
    assert all(content == contents[0] for content in contents)
    assert len(contents[0]) == 6
    # the preview and the estimate load a few samples once more, before the build
    assert builder.text().count(": publishing") == 1
    assert builder.text().count(": building") == 1
    zips = [e.name for e in store.entries(layout.DATASETS) if e.name.endswith(".zip")]
    assert zips == [layout.archive(key, 0)]


def test_defaults_left_out_are_the_same_dataset(
    new_builder: NewBuilder, client_config: Config, store: Store, cfg: Path, tmp_path: Path
) -> None:
    builder = new_builder().start()
    short = write_spec(tmp_path / "short.json", "counting", padding=10)
    first = dscache(client_config, "get", str(short))
    second = dscache(client_config, "get", str(cfg))
    assert first.code == second.code == 0, first.err + second.err
    assert Path(first.out.strip()).resolve() == Path(second.out.strip()).resolve()
    assert builder.text().count(": publishing") == 1
    alias = store.get(layout.ready(load_spec(short).key))
    assert alias is not None
    marker = manifests.decode_ready(alias.body, where="")
    assert isinstance(marker, Alias)
    assert marker.key == load_spec(cfg).key


def test_two_versions_side_by_side(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path
) -> None:
    new_builder().start()
    found = {}
    for version in ("1.0.0", "2.0.0"):
        ran = dscache(
            client_config, "get", str(write_spec(tmp_path / f"{version}.json", "counting", version))
        )
        assert ran.code == 0, ran.err
        found[version] = sorted(
            int(example["number"]) for example in package.Dataset(Path(ran.out.strip()))
        )
    assert found == {"1.0.0": [0, 1, 2, 3, 4, 5], "2.0.0": [0, 100, 200, 300, 400, 500]}


def test_python_interface(
    new_builder: NewBuilder, client_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in client_environ(client_config).items():
        if name.startswith("DSCACHE_"):
            monkeypatch.setenv(name, value)
    new_builder().start()
    topic = package.request_dataset("counting", "1.0.0", {"padding": 3})
    key = asyncio.run(package.wait_for_completion(topic, timeout_s=60))
    found = package.get(key)
    assert found.key == key
    assert found.info["splits"]
    assert {len(example["noise"]) for example in found} == {3}
    same = Client(client_config).get(
        {"dataset_name": "counting", "handler_version": "1.0.0", "dataset_config": {"padding": 3.0}}
    )
    assert same.key == key


def test_request_then_wait_then_get(
    new_builder: NewBuilder, client_config: Config, cfg: Path
) -> None:
    topic = dscache(client_config, "request", str(cfg)).out.strip()
    key = load_spec(cfg).key
    assert topic.startswith(f"{key}.")
    before = dscache(client_config, "status", str(cfg), "--json")
    assert json.loads(before.out)["state"] == "requested"
    new_builder().start()
    assert dscache(client_config, "wait", topic, "-q").out.strip() == key
    assert json.loads(dscache(client_config, "status", key, "--json").out)["state"] == "ready"
    assert dscache(client_config, "get", "--no-build", topic).code == 0
    assert dscache(client_config, "get", "--no-build", key).code == 0
    listed = json.loads(dscache(client_config, "ls", "--json").out)
    assert [(d["key"], d["examples"], d["local"]) for d in listed["datasets"]] == [(key, 6, True)]
    shown = json.loads(dscache(client_config, "show", key, "--json").out)
    assert shown["dataset_config"]["padding"] == 10


def test_run_starts_the_training(new_builder: NewBuilder, client_config: Config, cfg: Path) -> None:
    new_builder().start()
    script = "import os, sys; print(sorted(os.listdir(sys.argv[1]))[0]); sys.exit(7)"
    ran = dscache(client_config, "run", str(cfg), "--", "python", "-c", script, "{path}")
    assert ran.code == 7, ran.err
    assert "counting-train.tfrecord-00000-of-00006" in ran.out


def test_url_downloads_without_credentials(
    new_builder: NewBuilder, client_config: Config, cfg: Path, tmp_path: Path
) -> None:
    new_builder().start()
    assert dscache(client_config, "get", str(cfg)).code == 0
    link = dscache(client_config, "url", str(cfg)).out.strip()
    target = tmp_path / "d.zip"
    subprocess.run(["curl", "-sSf", "-o", str(target), link], check=True)
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None


def test_a_plain_package_from_a_git_tag(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path
) -> None:
    from support.troubles import PLAIN

    repository = tmp_path / "repository"
    repository.mkdir()
    PLAIN.tagged(repository, "v1")
    raw = tmp_path / "plain-raw"
    raw.mkdir()
    source = f"git+file://{repository}@{{version}}"
    datasets = {"numbers": {"handler": "numbers", "raw": str(raw), "source": source}}
    new_builder(datasets=datasets).start()
    ran = dscache(client_config, "get", str(write_spec(tmp_path / "c.json", "numbers", "v1")))
    assert ran.code == 0, ran.err
    assert len(list(package.Dataset(Path(ran.out.strip())))) > 0
