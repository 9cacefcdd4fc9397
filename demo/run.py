"""Run dscache from raw data to a trained network: `make demo`, or `python demo/run.py`.

Makes raw data from real photographs, starts a local store and builder, gets a dataset, trains on
it, and lists what is cached. In a second run, the dataset is a cache hit. Every step can be
interrupted and repeated. Uses the stack of `dscache up`, unless --directory names another.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raw_data import DemoError, make

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "patches.json"
TRAINING = HERE / "train.py"
NEEDED = {  # module → command that installs it
    "dscache": "pip install dscache",
    "minio": "pip install 'dscache[up]'",
    "dscache_builder": "pip install dscache-builder",
    "tensorflow": "pip install 'dscache[tf]'",
    "PIL": "pip install pillow",
}
BUILD_TIMEOUT_S = 600.0
INTERRUPTED = 130
OWN_PROFILE = "demo"


@dataclass(frozen=True)
class Demo:
    """What the steps share. `directory` is that of the demo's own stack, or None."""

    dscache: Path
    environ: Mapping[str, str]
    directory: Path | None
    epochs: int

    @property
    def directory_option(self) -> list[str]:
        """The option that selects the stack."""
        return ["--directory", str(self.directory)] if self.directory else []

    def run(self, *arguments: str) -> None:
        """Print a command and run it in this terminal. Raises DemoError if it fails."""
        self._call([*arguments], show=True, stdout=None)

    def output(self, *arguments: str, show: bool = False) -> str:
        """Run a command and return its standard output. Raises DemoError if it fails."""
        return self._call([*arguments], show=show, stdout=subprocess.PIPE)

    def _call(self, arguments: list[str], *, show: bool, stdout: int | None) -> str:
        argv = [str(self.dscache), *arguments]
        if show:
            say(f"$ {command_line(argv)}")
        done = subprocess.run(argv, env=self.environ, stdout=stdout, text=True, check=False)
        if done.returncode == INTERRUPTED:
            raise KeyboardInterrupt
        if done.returncode != 0:
            raise DemoError(
                f"`{command_line(argv)}` failed with exit code {done.returncode}; see above"
            )
        return (done.stdout or "").strip()


def run_steps(demo: Demo) -> None:
    """Run all steps. Raises DemoError at the first failure."""
    began = time.monotonic()
    raw = raw_folder(demo.environ)
    say("1. Raw data: photographs that came with scikit-image and scikit-learn, cut into tiles")
    say(f"{'made' if make(raw) else 'exists already'}: {abbreviated(raw)}\n")

    say("2. A local store and a builder beside the raw data")
    start(demo, raw)

    say("3. The dataset that demo/patches.json describes")
    get(demo)

    say("4. Training on it")
    python = relative(Path(sys.executable))
    training = [python, relative(TRAINING), "{path}", "--epochs", str(demo.epochs)]
    demo.run("run", relative(CONFIG), "--", *training)

    say("\n5. What is cached: in the store, and on this machine")
    demo.run("ls")
    demo.run("cache", "ls", "-q")

    say(f"\nDone in {time.monotonic() - began:.0f} s; run it again for a cache hit.\n")
    print_summary(demo, raw)


def start(demo: Demo, raw: Path) -> None:
    """Run `dscache up`, which starts what is not running."""
    profile = ["--profile", OWN_PROFILE] if demo.directory else []
    try:
        demo.run("up", *demo.directory_option, *profile, "--raw", f"photos={raw}")
    except DemoError as error:
        own = f"{relative(Path(sys.executable))} {relative(HERE / 'run.py')} --directory DIR"
        hint = "" if demo.directory else f"; to use a separate stack: {own}"
        raise DemoError(f"{error}{hint}") from None
    say("")


def get(demo: Demo) -> None:
    """Run `dscache get`, and print the time it took."""
    was_cached = is_cached(demo)
    began = time.perf_counter()
    config, timeout = relative(CONFIG), f"{BUILD_TIMEOUT_S:g}"
    path = demo.output("get", config, "--retry", "--timeout", timeout, show=True)
    seconds = time.perf_counter() - began
    origin = "a cache hit: the store was not asked" if was_cached else "downloaded and verified"
    say(f"{path}\n{seconds:.2f} s, {origin}\n")


def is_cached(demo: Demo) -> bool:
    """Whether the dataset is in the local cache."""
    import dscache
    from dscache import config
    from dscache.spec import load_spec

    client = dscache.Client(config.load(environ=demo.environ))
    return client.cache.find(load_spec(CONFIG).key) is not None


def print_summary(demo: Demo, raw: Path) -> None:
    """Print the web console's address and the commands that stop and remove everything."""
    facts: dict[str, Any] = json.loads(
        demo.output("up", *demo.directory_option, "--no-builder", "--json")
    )
    if facts["store_pid"] is not None:
        say(f"Web console   {facts['console']}")
        say(f"Log in with   user {facts['console_user']}, password {password(facts)}")
    program = command_line([str(demo.dscache)])
    option = f" {shlex.join(demo.directory_option)}" if demo.directory_option else ""
    say(f"Stop it all   {program} down{option}")
    say(f"Remove it     {program} down{option} --delete && rm -r {shlex.quote(str(raw))}")


def password(facts: Mapping[str, Any]) -> str:
    """Return the console's password on a terminal; elsewhere, name the file that contains it."""
    file = Path(facts["directory"]) / "credentials.json"
    if not sys.stdout.isatty():
        return f"in {abbreviated(file)}, under client"
    return str(json.loads(file.read_bytes())["client"]["secret_key"])


def raw_folder(environ: Mapping[str, str]) -> Path:
    """Return `$XDG_STATE_HOME/dscache/demo/photos`, which is outside the checkout."""
    home = Path(environ.get("HOME", "~")).expanduser()
    base = Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "dscache" / "demo" / "photos"


def prepare(given: argparse.Namespace) -> Demo:
    """Check that everything needed is installed. Raises DemoError naming what is missing."""
    for module, remedy in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise DemoError(
                f"{module} is not installed for {sys.executable}; run `make`, or `{remedy}`"
            )
    program = Path(sys.executable).with_name("dscache")
    if not program.is_file():
        raise DemoError(f"{program} does not exist; run `make`, or `pip install dscache`")
    environ = dict(os.environ)
    directory = given.directory.resolve() if given.directory else None
    if directory:
        environ["DSCACHE_PROFILE"] = OWN_PROFILE
    return Demo(program, environ, directory, given.epochs)


def command_line(argv: list[str]) -> str:
    """Return a command as a user would type it here."""
    return shlex.join([relative(Path(argv[0])), *argv[1:]])


def relative(path: Path) -> str:
    """Return the path relative to the working directory, if it is below it."""
    cwd = Path.cwd()
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def abbreviated(path: Path) -> str:
    """Return the path with ~ for the home directory, if it is below it."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def say(text: str) -> None:
    """Print a line and flush it: the programs that are run print too."""
    print(text, flush=True)  # noqa: T201


@contextmanager
def exiting() -> Iterator[None]:
    """Turn errors into one line and an exit code."""
    try:
        yield
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("\ndemo: interrupted; run it again to continue\n")
        sys.exit(INTERRUPTED)


def main() -> None:
    """Run `run.py [--epochs N] [--directory DIR]`."""
    parser = argparse.ArgumentParser(description="dscache from raw data to a trained network.")
    parser.add_argument(
        "--epochs", type=int, default=12, help="number of training epochs (default: 12)"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        help="directory of a separate stack (default: the stack of `dscache up`)",
    )
    given = parser.parse_args()
    if given.epochs < 1:
        parser.error(f"--epochs {given.epochs}: expected at least 1")
    with exiting():
        run_steps(prepare(given))


if __name__ == "__main__":
    main()
