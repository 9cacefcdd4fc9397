"""`dscache get` of a cached dataset: as light as reading a few files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dscache.cli.get import parse_shards
from dscache.cli.group import exit_with
from dscache.errors import UsageError
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.spec import load_spec

HEAVY = {
    "boto3", "botocore", "click", "http.client", "logging", "msgspec", "socket", "ssl", "urllib3",
}  # fmt: skip
PRINT_MODULES = "atexit.register(lambda: print(*sys.modules, file=sys.stderr))"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cfg.json"
    members = {"dataset_name": "photos", "handler_version": "1.0.0", "dataset_config": {"a": 1.0}}
    path.write_text(json.dumps(members))
    return path


@pytest.fixture
def cached(tmp_path: Path, config: Path) -> Path:
    """The folder of the config's dataset, in the cache."""
    spec = load_spec(config)
    live = Live(spec=spec, generation=0, zip_key="z", zip_etag="e", zip_size=1, seal="", members=[])
    folder = tmp_path / "home" / "datasets" / spec.key
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(manifests.encode(live))
    return folder


def dscache(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    code = f"import atexit, sys; {PRINT_MODULES}; from dscache.cli import main"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DSCACHE_HOME": str(tmp_path / "home"),
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", f"{code}; main()", *words],
        capture_output=True, text=True, check=False, env=environ, cwd=tmp_path,
    )  # fmt: skip


def loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The modules it had imported when it ended."""
    modules = set(done.stderr.split())
    assert "dscache.cli" in modules
    return modules


def test_a_hit_prints_the_path_and_imports_next_to_nothing(
    tmp_path: Path, config: Path, cached: Path
) -> None:
    for name in ("cfg.json", cached.name):
        done = dscache(tmp_path, "get", name)
        assert (done.returncode, done.stdout) == (0, f"{cached}\n"), done.stderr
        assert loaded(done).isdisjoint(HEAVY)


def test_with_options_the_answer_is_the_same(tmp_path: Path, config: Path, cached: Path) -> None:
    done = dscache(tmp_path, "get", "-q", "cfg.json")
    assert (done.returncode, done.stdout) == (0, f"{cached}\n")
    assert loaded(done) & HEAVY == {"click"}


def test_a_hit_counts_as_used(tmp_path: Path, config: Path, cached: Path) -> None:
    dscache(tmp_path, "get", "cfg.json")
    assert (tmp_path / "home" / "used" / cached.name).exists()


@pytest.mark.parametrize("manifest", [b"", b'{"schema', bytes(100)])
def test_a_damaged_dataset_is_no_hit(
    tmp_path: Path, config: Path, cached: Path, manifest: bytes
) -> None:
    (cached / "manifest.json").write_bytes(manifest)
    done = dscache(tmp_path, "get", "cfg.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no endpoint is configured" in done.stderr


def test_a_split_that_the_cached_dataset_does_not_have(
    tmp_path: Path, config: Path, cached: Path
) -> None:
    done = dscache(tmp_path, "get", "cfg.json", "--split", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no split 'nope' in photos" in done.stderr


def test_errors_are_those_of_the_command(tmp_path: Path, config: Path) -> None:
    config.write_text('{"dataset_name": "photos"}')
    done = dscache(tmp_path, "get", "cfg.json")
    assert done.returncode == 2
    assert "dscache: cfg.json: member 'handler_version' is missing" in done.stderr
    done = dscache(tmp_path, "get", "cfg.json", DSCACHE_PROFILE="lab")
    assert done.returncode == 2
    assert "profile 'lab' (from $DSCACHE_PROFILE)" in done.stderr


def test_help_is_not_a_hit(tmp_path: Path) -> None:
    done = dscache(tmp_path, "get", "--help")
    assert done.returncode == 0
    assert "Print the local path" in done.stdout


def shell(tmp_path: Path, command: str) -> subprocess.CompletedProcess[str]:
    """The command line in bash; `dscache` is this one."""
    program = f"{sys.executable} -c 'from dscache.cli import main; main()'"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environ |= {"DSCACHE_HOME": "home", "DSCACHE_ENDPOINT": "http://127.0.0.1:1"}
    words = ["bash", "-c", f'dscache() {{ {program} "$@"; }}; {command}']
    return subprocess.run(
        words, capture_output=True, text=True, check=False, env=environ, cwd=tmp_path
    )


def test_a_relative_home_gives_an_absolute_path(tmp_path: Path, config: Path, cached: Path) -> None:
    assert shell(tmp_path, "dscache get cfg.json").stdout == f"{cached}\n"


def test_a_config_from_a_pipe_is_read_once(tmp_path: Path, config: Path, cached: Path) -> None:
    assert shell(tmp_path, "dscache get <(cat cfg.json)").stdout == f"{cached}\n"
    assert shell(tmp_path, "cat cfg.json | dscache get /dev/stdin").stdout == f"{cached}\n"
    cached.rename(cached.with_name("elsewhere"))
    done = shell(tmp_path, "cat cfg.json | dscache get --no-build /dev/stdin")
    assert done.returncode in (6, 7), done.stderr  # it has read the config and asks the store


@pytest.mark.parametrize("option", ["", "-q"])
def test_a_full_disk_at_the_other_end(
    tmp_path: Path, config: Path, cached: Path, option: str
) -> None:
    done = shell(tmp_path, f"dscache get {option} cfg.json > /dev/full")
    assert (done.returncode, done.stderr) == (1, "dscache: No space left on device\n")


def test_what_the_operating_system_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        exit_with(PermissionError(13, "Permission denied", "/x/y"))
    assert capsys.readouterr().err == "dscache: Permission denied: /x/y\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [("3-1", "smaller"), ("", "not a number"), ("0-999999999", "too large"), ("1-", "not a"),
     ("0-9999999999999", "not a"), ("-1", "not a"), ("²", "not a"), ("1,,2", "not a")],
)  # fmt: skip
def test_shards_that_are_none(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_shards(text)


def test_shards() -> None:
    assert parse_shards("0-3,7, 2") == [0, 1, 2, 3, 7]
