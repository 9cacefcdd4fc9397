"""Programs of others that tests and benchmarks run: `python -m support.gotools NAME` prints a path.

They are built by `go install` once per machine, into `tools/` of the cache, under a lock. A program
appears there in one step: whoever comes second waits and finds it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from dscache.config import default_home
from dscache.devstack.errors import StackError, with_tail
from dscache.devstack.recipe import GO_VERSION
from dscache.devstack.toolchain import find_go

SETTINGS = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
Say = Callable[[str], None]


class Program(NamedTuple):
    """A program as a package of a Go module: `built` is what `go install` calls it, `go` the least
    version its module asks for, `usual` how long it takes on two cores."""

    package: str
    version: str
    built: str
    usual: str
    go: tuple[int, int] = GO_VERSION


PROGRAMS = {
    "toxiproxy": Program(
        "github.com/Shopify/toxiproxy/v2/cmd/server", "v2.5.0", "server", "a minute"
    ),
    "mc": Program("github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9", "mc", "two minutes"),
    "rclone": Program("github.com/rclone/rclone", "v1.76.0", "rclone", "ten minutes", (1, 26)),
}


def path_of(name: str, environ: Mapping[str, str]) -> Path:
    """Where the program is, or will be."""
    return default_home(environ) / "tools" / f"{name}-{PROGRAMS[name].version}" / name


def ensure_program(name: str, environ: Mapping[str, str], say: Say) -> Path:
    """Path of the program, building it if this machine has none yet. Raises StackError."""
    path = path_of(name, environ)
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".lock"):
        if not path.is_file():
            _build(name, path, environ, say)
    return path


def _build(name: str, path: Path, environ: Mapping[str, str], say: Say) -> None:
    program = PROGRAMS[name]
    log = path.parent / "build.log"
    log.unlink(missing_ok=True)
    say(f"building {name} {program.version}, once per machine ({program.usual}); log: {log}")
    go = find_go(environ, say, log, program.go)
    with tempfile.TemporaryDirectory(prefix="build-", dir=path.parent) as scratch:
        source = f"{program.package}@{program.version}"
        argv = [str(go), "install", "-v", "-ldflags", "-s -w", source]
        settings = {**environ, **SETTINGS, "GOBIN": scratch}
        with log.open("ab") as output:
            done = subprocess.run(
                argv, env=settings, cwd=scratch, stdout=output, stderr=output, check=False
            )
        built = Path(scratch) / program.built
        if done.returncode != 0 or not built.is_file():
            raise StackError(
                with_tail(f"{name} cannot be built: `go {' '.join(argv[1:])}` failed", log)
            )
        built.replace(path)


def main(names: list[str]) -> int:
    """Build what is missing, print a path a line. Messages go to standard error."""
    if unknown := set(names) - set(PROGRAMS):
        print(f"error: {', '.join(unknown)}: choose from {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    try:
        for name in names:
            print(
                ensure_program(name, os.environ, lambda line: print(line, file=sys.stderr)),
                flush=True,
            )
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
