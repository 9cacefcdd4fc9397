"""Small handler packages, made on the fly: as folders, wheels and tagged git repositories."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import uv

CHECKOUT = Path(__file__).resolve().parents[2]
OWN_PACKAGES = ("handlers/sdk", "handlers/dataset-handlers")

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "{version}"
requires-python = ">=3.11"
dependencies = [{dependencies}]

[project.entry-points."dscache.handlers"]
{entry_points}

[tool.hatch.build.targets.wheel]
include = ["{module}.py"]
"""


@dataclass(frozen=True)
class HandlerPackage:
    """A package of one module.

    `handlers` are classes of `code` by entry point; `dependencies` are requirements, the SDK if
    nothing else is said (a plain handler has none).
    """

    name: str
    code: str
    handlers: dict[str, str]
    version: str = "1.0.0"
    dependencies: tuple[str, ...] = field(default=("dscache-sdk",))

    @property
    def module(self) -> str:
        """The module's name."""
        return self.name.replace("-", "_")

    def write(self, folder: Path) -> Path:
        """Write pyproject.toml and the module into `folder`, replacing older ones."""
        folder.mkdir(parents=True, exist_ok=True)
        points = [f'{name} = "{self.module}:{cls}"' for name, cls in self.handlers.items()]
        project = _PROJECT.format(
            name=self.name,
            version=self.version,
            module=self.module,
            dependencies=", ".join(f'"{one}"' for one in self.dependencies),
            entry_points="\n".join(points),
        )
        (folder / "pyproject.toml").write_text(project)
        (folder / f"{self.module}.py").write_text(dedent(self.code))
        return folder

    def wheel(self, folder: Path, to: Path) -> Path:
        """Write the package into `folder` and build its wheel into the folder `to`."""
        return build_wheel(self.write(folder), to)

    def tagged(self, repository: Path, tag: str) -> str:
        """Commit the package to a git repository (made when missing), tag it, return the commit.

        An existing tag is moved.
        """
        self.write(repository)
        if not (repository / ".git").exists():
            git(repository, "init", "-q")
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "--allow-empty", "-m", f"Release {tag}")
        git(repository, "tag", "--force", "--annotate", "-m", tag, tag)
        return git(repository, "rev-parse", "HEAD")


def build_wheel(package: Path, to: Path) -> Path:
    """Build the wheel of a package's folder into the folder `to`; returns its path."""
    before = set(to.glob("*.whl"))
    command = [uv.find_uv_bin(), "build", "-q", "--wheel", "--out-dir", str(to), str(package)]
    subprocess.run(command, check=True, capture_output=True)
    made = set(to.glob("*.whl")) - before
    return made.pop() if made else max(to.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)


def own_wheels(to: Path) -> Path:
    """Build the wheels of the SDK and of the handlers in this checkout into the folder `to`."""
    to.mkdir(parents=True, exist_ok=True)
    for package in OWN_PACKAGES:
        build_wheel(CHECKOUT / package, to)
    return to


def git(repository: Path, *words: str) -> str:
    """Run git in a repository, as nobody in particular and without the user's configuration."""
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Nobody"), ("EMAIL", "nobody@localhost"))
    }
    variables = {
        **os.environ,
        **who,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    done = subprocess.run(
        ["git", *words], cwd=repository, env=variables, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
