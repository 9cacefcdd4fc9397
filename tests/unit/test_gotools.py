"""Foreign programs are built once, appear in one step, and a failure says where to look."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dscache.devstack.errors import StackError
from support import gotools

FAKE_GO = """\
#!{python}
import os, pathlib, sys
if sys.argv[1] == "version":
    sys.exit(print("go version go1.26.0 linux/amd64"))
assert os.environ["CGO_ENABLED"] == "0" and os.environ["GOTOOLCHAIN"] == "local"
with pathlib.Path({calls!r}).open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if {fails}:
    sys.exit("main.go:1:1: syntax error")
(pathlib.Path(os.environ["GOBIN"]) / "server").write_text("a program")
"""


class Machine:
    """A PATH with a `go` of our own, and an empty cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.environ = {"PATH": f"{folder}/bin:/usr/bin:/bin", "XDG_CACHE_HOME": f"{folder}/cache"}

    def compiler(self, *, fails: bool) -> None:
        program = self.folder / "bin" / "go"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            FAKE_GO.format(python=sys.executable, calls=str(self.calls), fails=fails)
        )
        program.chmod(0o755)

    def ensure(self) -> Path:
        return gotools.ensure_program("toxiproxy", self.environ, lambda _: None)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_two_at_once_build_once(machine: Machine) -> None:
    machine.compiler(fails=False)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: machine.ensure(), range(2))
    assert first == second == machine.folder / "cache/dscache/tools/toxiproxy-v2.5.0/toxiproxy"
    assert first.read_text() == "a program"
    assert machine.calls.read_text().splitlines() == [
        "install -v -ldflags -s -w github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0"
    ]


def test_a_failure_shows_the_compilers_words_and_leaves_nothing(machine: Machine) -> None:
    machine.compiler(fails=True)
    with pytest.raises(StackError, match="toxiproxy cannot be built: `go install ") as caught:
        machine.ensure()
    assert "main.go:1:1: syntax error" in str(caught.value)
    assert "full log: " in str(caught.value)
    kept = machine.folder / "cache/dscache/tools/toxiproxy-v2.5.0"
    assert sorted(path.name for path in kept.iterdir()) == [".lock", "build.log"]
    machine.compiler(fails=False)
    assert machine.ensure().is_file()


def test_an_unknown_program_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gotools.main(["toxic"]) == 2
    assert "choose from toxiproxy, mc, rclone" in capsys.readouterr().err
