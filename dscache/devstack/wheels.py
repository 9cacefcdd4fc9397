"""Build wheels of the handlers of a checkout, which need not be on an index."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import StackError, with_tail

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECTS = ("handlers/sdk", "handlers/dataset-handlers")


def projects(checkout: Path = CHECKOUT) -> list[Path]:
    """Return the handler projects beside this package; [] if it was installed from a wheel."""
    folders = [checkout / project for project in PROJECTS]
    return [folder for folder in folders if (folder / "pyproject.toml").is_file()]


def build(folders: list[Path], wheels: Path, environ: Mapping[str, str], log: Path) -> None:
    """Build a wheel of each project into `wheels`. Raises StackError with the end of the log.

    A wheel depends on the sources alone (hatchling fixes its timestamps), so building it again from
    the same sources does not change its digest.
    """
    wheels.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        argv = [_uv(environ), "build", "--wheel", "--quiet", "--out-dir", str(wheels)]
        argv += ["--python", sys.executable, *_isolation(), str(folder)]
        with log.open("ab") as output:
            done = subprocess.run(
                argv, stdout=output, stderr=output, env=dict(environ), timeout=600, check=False
            )
        if done.returncode != 0:
            raise StackError(with_tail(f"the wheel of {folder} could not be built", log))
    (wheels / ".gitignore").unlink(missing_ok=True)


def _isolation() -> list[str]:
    """Return the option that avoids a download if the build backend is installed."""
    return ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []


def _uv(environ: Mapping[str, str]) -> str:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv", path=environ.get("PATH", ""))
    if not uv:
        raise StackError("building the handlers' wheels needs uv: pip install uv")
    return uv
