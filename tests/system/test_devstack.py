"""`dscache up` and `dscache down`, with real servers and a real builder."""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dscache import config
from dscache.cli import stack as commands
from dscache.config import Config
from dscache.devstack import folder, probe, process, record, takedown
from dscache.devstack.errors import StackError
from dscache.devstack.localstore import LocalStore
from dscache.devstack.stack import StackOptions, StackReport
from dscache.devstack.stack import up as bring_up
from dscache.errors import AccessDenied, UsageError
from dscache.store.s3 import Store

pytestmark = pytest.mark.store
SILENT = Path(__file__).with_name("silent_server.py")


@pytest.fixture
def environ(tmp_path: Path, minio_binary: Path) -> dict[str, str]:
    """A user with an empty home directory, no server on PATH, and this machine's cache."""
    return {
        "HOME": str(tmp_path / "user"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "XDG_CACHE_HOME": str(config.default_home(os.environ).parent),
    }


@dataclass
class Up:
    """`up(...)` in a directory, and what it said."""

    directory: Path
    environ: Mapping[str, str]
    said: list[str] = field(default_factory=list)

    def __call__(
        self, *, builder: bool = False, more: Mapping[str, str] | None = None, **options: Any
    ) -> StackReport:
        wanted = StackOptions(self.directory, builder=builder, **options)
        return bring_up(wanted, {**self.environ, **(more or {})}, self.said.append)


@pytest.fixture
def up(tmp_path: Path, environ: dict[str, str]) -> Iterator[Up]:
    """`up(...)` in `tmp_path/stack`; whatever is still running at the end is taken down."""
    directory = tmp_path / "stack"
    yield Up(directory, environ)
    if (directory / record.STACK_FILE).is_file():
        takedown.down(directory, environ)


def loaded(environ: dict[str, str], tmp_path: Path) -> Config:
    """What `dscache get` would work with."""
    return config.load(environ=environ, cwd=tmp_path)


def test_up_makes_a_store_that_works_at_once(
    up: Up, environ: dict[str, str], tmp_path: Path
) -> None:
    report = up()
    assert report.changed == ["store started", "profile 'local' written"]
    assert report.default
    user_file = config.user_file(environ)
    assert stat.S_IMODE(user_file.stat().st_mode) == 0o600
    client = loaded(environ, tmp_path)
    assert client.profile == "local"
    assert client.console.startswith("http://127.0.0.1:")
    Store(client).put("requests/x.n.json", b"{}", if_none_match=True)
    with pytest.raises(AccessDenied):
        Store(client).put("datasets/x.ready", b"{}")


def test_secrets_are_private_and_different(up: Up, tmp_path: Path) -> None:
    up()
    directory = tmp_path / "stack"
    for name in (record.CREDENTIALS_FILE, record.STACK_FILE, "store.log"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    users = record.credentials(directory)
    secrets = {users.root.secret_key, users.client.secret_key, users.builder.secret_key}
    assert len(secrets) == 3
    assert min(map(len, secrets)) >= 32
    assert not any(secret in repr(users) for secret in secrets)


def test_the_second_time_changes_nothing(up: Up, environ: dict[str, str], tmp_path: Path) -> None:
    first = up()
    files = [config.user_file(environ), *(tmp_path / "stack").glob("*.json")]
    before = {path: path.read_bytes() for path in files}
    assert {record.CREDENTIALS_FILE, record.STACK_FILE} <= {path.name for path in files}
    second = up()
    assert second.changed == []
    assert second.place.own is not None
    assert first.place.own is not None
    assert second.place.own.pid == first.place.own.pid
    assert {path: path.read_bytes() for path in files} == before


def test_a_store_that_died_is_started_again_where_it_was(
    up: Up, environ: dict[str, str], tmp_path: Path
) -> None:
    first = up()
    Store(loaded(environ, tmp_path)).put("requests/x.n.json", b"{}")
    process.kill(record.read_record(tmp_path / "stack").server)
    second = up()
    assert second.changed == ["store started"]
    assert second.place.client.endpoint == first.place.client.endpoint
    assert Store(loaded(environ, tmp_path)).get("requests/x.n.json") is not None


def test_a_port_that_was_taken_meanwhile(up: Up, environ: dict[str, str], tmp_path: Path) -> None:
    first = up()
    takedown.down(tmp_path / "stack", environ)
    port = int(first.place.client.endpoint.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        second = up()
        assert second.place.client.endpoint != first.place.client.endpoint
        assert second.changed == ["store started", "profile 'local' written"]
        assert Store(loaded(environ, tmp_path)).get("requests/x") is None


def test_two_at_once_start_one_store(up: Up) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: up(), range(2)))
    assert sorted(len(report.changed) for report in reports) == [0, 2]
    assert len({report.place.own.pid for report in reports if report.place.own}) == 1


def test_down_stops_what_was_started_and_keeps_the_data(
    up: Up, environ: dict[str, str], tmp_path: Path
) -> None:
    directory = tmp_path / "stack"
    up()
    Store(loaded(environ, tmp_path)).put("requests/x.n.json", b"{}")
    server = record.read_record(directory).server
    assert takedown.down(directory, environ) == ["store stopped"]
    assert not process.alive(server)
    assert takedown.down(directory, environ) == []
    up()
    assert Store(loaded(environ, tmp_path)).get("requests/x.n.json") is not None


def test_down_leaves_other_processes_alone(
    up: Up, environ: dict[str, str], tmp_path: Path, store_server: LocalStore
) -> None:
    """Neither another server nor a stranger that was given the process id of ours is touched."""
    directory = tmp_path / "stack"
    up()
    takedown.down(directory, environ)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        kept = record.read_record(directory)
        boot = process.BOOT_ID.read_text().strip()
        kept.server = kept.builder = process.Process(stranger.pid, started=1, boot=boot)
        record.write_record(directory, kept)
        assert takedown.down(directory, environ) == []
        assert stranger.poll() is None
        stranger.communicate(b"\n", timeout=30)
    assert stranger.returncode == 0
    assert store_server.running


def test_delete_removes_data_and_profile_but_nobody_elses_files(
    up: Up, environ: dict[str, str], tmp_path: Path
) -> None:
    directory = tmp_path / "stack"
    up()
    (directory / "mine.txt").write_text("keep")
    locked = directory / "builder" / "environment"
    locked.mkdir(parents=True)
    (locked / "file").write_text("")
    locked.chmod(0o500)
    done = takedown.down(directory, environ, delete=True)
    assert done[0] == "store stopped"
    assert [path.name for path in directory.iterdir()] == ["mine.txt"]
    assert loaded(environ, tmp_path).endpoint == ""


def test_delete_removes_an_empty_directory(up: Up, environ: dict[str, str], tmp_path: Path) -> None:
    up()
    takedown.down(tmp_path / "stack", environ, delete=True)
    assert not (tmp_path / "stack").exists()


def test_down_where_no_stack_is(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no stack in"):
        takedown.down(tmp_path, environ, delete=True)


def test_a_configured_store_that_answers_is_used(
    up: Up, client_config: Config, environ: dict[str, str], tmp_path: Path
) -> None:
    variables = {
        "DSCACHE_ENDPOINT": client_config.endpoint,
        "DSCACHE_BUCKET": client_config.bucket,
        "DSCACHE_ACCESS_KEY": client_config.access_key,
        "DSCACHE_SECRET_KEY": client_config.secret_key,
    }
    report = up(more=variables)
    assert report.place.own is None
    assert report.changed == []
    assert report.place.client.endpoint == client_config.endpoint
    assert not (tmp_path / "stack" / "data").exists()
    assert not config.user_file(environ).exists()
    with pytest.raises(AccessDenied):
        up(more={**variables, "DSCACHE_SECRET_KEY": "wrong"})


def test_a_configured_store_that_is_silent_is_not(up: Up) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        report = up(more={"DSCACHE_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}"})
    assert report.place.own is not None
    assert not report.default


def test_the_default_profile_may_be_named_before_it_exists(up: Up) -> None:
    assert up(more={"DSCACHE_PROFILE": "local"}).default


def test_a_profile_for_a_store_elsewhere_is_not_overwritten(
    up: Up, environ: dict[str, str]
) -> None:
    path = config.user_file(environ)
    config.write_profile(path, "local", {"endpoint": "https://data.example.org"})
    before = path.read_bytes()
    with pytest.raises(UsageError, match="choose another name"):
        up()
    assert path.read_bytes() == before
    assert up(profile="mine").profile == "mine"


def program_on_path(tmp_path: Path, environ: dict[str, str], *words: str) -> Path:
    """A program called `minio`, first on PATH, that executes these words."""
    path = tmp_path / "bin" / "minio"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
    environ["PATH"] = f"{path.parent}:{environ['PATH']}"
    return path


def test_a_server_on_path_that_streams_is_used(
    up: Up, environ: dict[str, str], tmp_path: Path, minio_binary: Path
) -> None:
    path = program_on_path(tmp_path, environ, str(minio_binary))
    up()
    assert record.read_record(tmp_path / "stack").binary == probe.identity(path)


def test_a_server_on_path_that_does_not_stream_is_not(
    up: Up, environ: dict[str, str], tmp_path: Path, minio_binary: Path
) -> None:
    path = program_on_path(
        tmp_path,
        environ,
        "env",
        f"DSCACHE_REAL_SERVER={minio_binary}",
        sys.executable,
        str(SILENT),
    )
    report = up()
    assert report.place.own is not None
    assert report.place.own.binary == minio_binary
    assert "sends them nothing" in up.said[0]
    assert record.read_record(tmp_path / "stack").rejected == [probe.identity(path)]


@pytest.mark.system
def test_the_builder_runs_is_kept_and_is_restarted(
    up: Up, environ: dict[str, str], tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    first = up(builder=True)
    assert first.builder_pid is None
    assert "no raw data yet" in first.builder
    first = up(builder=True, raw={"photos": pictures, "pairs": pictures})
    assert (first.builder, first.changed) == ("running", ["builder started"])
    assert any("[datasets.pairs]" in said and "`source`" in said for said in up.said)
    second = up(builder=True, raw={"photos": pictures})
    assert (second.builder_pid, second.changed) == (first.builder_pid, [])
    process.kill(record.read_record(tmp_path / "stack").builder)
    third = up(builder=True)
    assert third.changed == ["builder started"]
    assert takedown.down(tmp_path / "stack", environ) == ["builder stopped", "store stopped"]
    wheels = sorted(path.name.partition("-")[0] for path in (tmp_path / "stack/wheels").iterdir())
    assert wheels == ["dataset_handlers", "dscache_sdk"]


@pytest.mark.system
def test_a_builder_that_cannot_start_says_why(up: Up, tmp_path: Path) -> None:
    directory = tmp_path / "stack"
    up()
    (directory / "builder.toml").write_text("[datasets.photos]\nhandler = 3\n")
    with pytest.raises(StackError, match="the builder exited immediately") as caught:
        up(builder=True)
    assert "builder.toml" in str(caught.value)
    assert up().place.own is not None


def run(command: str, *words: str, environ: dict[str, str]) -> str:
    """Output of a command, whose environment is `environ` and nothing else."""
    blank = {name: None for name in os.environ if name not in environ}
    group = getattr(commands, command)
    result = CliRunner(env={**blank, **environ}).invoke(group, words, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_command_line(environ: dict[str, str], tmp_path: Path) -> None:
    directory = folder.default(environ)
    shown = run("up", "--no-builder", environ=environ)
    try:
        secret = record.credentials(directory).client.secret_key
        assert secret not in shown  # standard output is no terminal here
        assert str(directory / "credentials.json") in shown
        assert "to stop it: dscache down\n" in shown
        facts = json.loads(run("up", "--no-builder", "--json", environ=environ))
        assert facts["endpoint"] in shown
        assert facts["console"] in shown
        assert facts["changed"] == []
        assert secret not in json.dumps(facts)
    finally:
        stopped = run("down", "--delete", "--json", environ=environ)
    assert json.loads(stopped)["done"][0] == "store stopped"
    assert not directory.exists()


def test_command_line_names_a_directory_of_its_own(environ: dict[str, str], tmp_path: Path) -> None:
    place = str(tmp_path / "here")
    try:
        assert f"dscache down --directory {place}" in run(
            "up", "--no-builder", "--directory", place, environ=environ
        )
    finally:
        assert "store stopped" in run("down", "--directory", place, environ=environ)
    assert run("down", "--directory", place, environ=environ) == "nothing was running\n"
