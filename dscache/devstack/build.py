"""Build the store's server once per machine; `python -m dscache.devstack.build` prints its path.

The module's source is copied from the Go module cache, our file is added, and the copy is built.
The binary appears in the cache atomically after it has been probed. A lock makes a second process
wait and use the first one's binary.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from filelock import FileLock

from . import probe, recipe
from .errors import StackError, with_tail
from .toolchain import find_go

USUAL_MIN = 5  # on two cores, downloads included
REPORT_S = 15.0
Say = Callable[[str], None]


def ensure_binary(environ: Mapping[str, str], say: Say) -> Path:
    """Return the path of the built server; build it if necessary. Raises StackError."""
    binary = recipe.binary(environ)
    if binary.is_file():
        return binary
    folder = recipe.folder(environ)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not binary.is_file():
            _build(folder, binary, environ, say)
    return binary


def _build(folder: Path, binary: Path, environ: Mapping[str, str], say: Say) -> None:
    log = folder / "build.log"
    log.unlink(missing_ok=True)
    say(f"building the object store {recipe.VERSION} (once per machine); log: {log}")
    go = find_go(environ, say, log)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as scratch:
        source = Path(scratch) / "source"
        _copy_source(_download(go, Path(scratch), environ, log), source)
        built = Path(scratch) / "minio"
        _compile(go, source, built, environ, log, say)
        say("checking that the new store sends notifications")
        probe.check(built)
        built.replace(binary)
    say(f"built {binary}")


def _download(go: Path, scratch: Path, environ: Mapping[str, str], log: Path) -> Path:
    """Download the module; return its directory in the module cache."""
    argv = [str(go), "mod", "download", "-json", f"{recipe.MODULE}@{recipe.VERSION}"]
    description = scratch / "download.json"
    _run(argv, scratch, environ, log, lambda: None, output=description)
    return Path(msgspec.json.decode(description.read_bytes())["Dir"])


def _copy_source(module: Path, source: Path) -> None:
    """Copy the source and add our file; the module cache itself is read-only."""
    shutil.copytree(module, source, copy_function=shutil.copyfile)
    for folder in (source, *(path for path in source.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    shutil.copyfile(recipe.ADDED_FILE, source / "cmd" / "dscache_flush.go")


def _compile(
    go: Path, source: Path, built: Path, environ: Mapping[str, str], log: Path, say: Say
) -> None:
    argv = [str(go), "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
    began = time.monotonic()
    reported = began - REPORT_S

    def report() -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= REPORT_S:
            reported = now
            packages = sum(not line.startswith("go: ") for line in log.read_text().splitlines())
            say(f"  {packages} packages compiled, {now - began:.0f} s of about {USUAL_MIN} min")

    _run([*argv, "-o", str(built), "."], source, environ, log, report)


def _run(
    argv: Sequence[str],
    cwd: Path,
    environ: Mapping[str, str],
    log: Path,
    report: Callable[[], None],
    *,
    output: Path | None = None,
) -> None:
    """Run a Go command; its output goes to the log, or standard output to `output`."""
    settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    with log.open("ab") as errors, (output or log).open("ab") as out:
        command = subprocess.Popen(
            argv, cwd=cwd, env={**environ, **settings}, stdout=out, stderr=errors
        )
        try:
            while command.poll() is None:
                report()
                _wait_a_second(command)
        except BaseException:
            command.kill()  # on Ctrl-C the compiler would keep running
            command.wait()
            raise
    if command.returncode != 0:
        raise StackError(with_tail(f"`{' '.join(argv[:3])} …` failed", log))


def _wait_a_second(command: subprocess.Popen[bytes]) -> None:
    try:
        command.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return


def main() -> int:
    """Build the server if necessary, and print its path. Messages go to standard error."""
    try:
        binary = ensure_binary(os.environ, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(binary)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
