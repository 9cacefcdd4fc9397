"""The whole story on one machine: `make demo`, or `python demo/run.py`.

Makes raw data from real photographs, starts a local store and builder, has a dataset built, trains
on it, and lists what is cached. Run it again and the dataset is a cache hit. Every step may be
interrupted and done again. The stack is that of `dscache up`, unless --directory names another.
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
NEEDED = {  # module → how to get it
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
    """What all steps share. `directory` is that of a stack of the demo's own, or None."""

    dscache: Path
    environ: Mapping[str, str]
    directory: Path | None
    epochs: int

    @property
    def where(self) -> list[str]:
        """The option that names the stack."""
        return ["--directory", str(self.directory)] if self.directory else []

    def run(self, *words: str) -> None:
        """Show a command and run it in this terminal. Raises DemoError when it fails."""
        self._call([*words], show=True, stdout=None)

    def output(self, *words: str, show: bool = False) -> str:
        """Run a command and return its standard output. Raises DemoError when it fails."""
        return self._call([*words], show=show, stdout=subprocess.PIPE)

    def _call(self, words: list[str], *, show: bool, stdout: int | None) -> str:
        argv = [str(self.dscache), *words]
        if show:
            say(f"$ {spoken(argv)}")
        done = subprocess.run(argv, env=self.environ, stdout=stdout, text=True, check=False)
        if done.returncode == INTERRUPTED:
            raise KeyboardInterrupt
        if done.returncode != 0:
            raise DemoError(f"`{spoken(argv)}` ended with exit code {done.returncode}; see above")
        return (done.stdout or "").strip()


def story(demo: Demo) -> None:
    """All of it. Raises DemoError at the first thing that does not work."""
    began = time.monotonic()
    raw = raw_folder(demo.environ)
    say("1. Raw data: photographs that came with scikit-image and scikit-learn, cut into tiles")
    say(f"{'made' if make(raw) else 'there already'}: {shorter(raw)}\n")

    say("2. A local store and a builder beside the raw data")
    start(demo, raw)

    say("3. The dataset that demo/patches.json describes")
    get(demo)

    say("4. Training on it")
    python = spoken_path(Path(sys.executable))
    training = [python, spoken_path(TRAINING), "{path}", "--epochs", str(demo.epochs)]
    demo.run("run", spoken_path(CONFIG), "--", *training)

    say("\n5. What is cached: in the store, and on this machine")
    demo.run("ls")
    demo.run("cache", "ls", "-q")

    say(f"\nDone in {time.monotonic() - began:.0f} s; run it again for a cache hit.\n")
    farewell(demo, raw)


def start(demo: Demo, raw: Path) -> None:
    """`dscache up`: starts what does not run yet."""
    profile = ["--profile", OWN_PROFILE] if demo.directory else []
    try:
        demo.run("up", *demo.where, *profile, "--raw", f"photos={raw}")
    except DemoError as error:
        own = f"{spoken_path(Path(sys.executable))} {spoken_path(HERE / 'run.py')} --directory DIR"
        hint = "" if demo.directory else f"; for a stack of the demo's own: {own}"
        raise DemoError(f"{error}{hint}") from None
    say("")


def get(demo: Demo) -> None:
    """`dscache get`, with the time it took."""
    before = is_here(demo)
    began = time.perf_counter()
    config, timeout = spoken_path(CONFIG), f"{BUILD_TIMEOUT_S:g}"
    path = demo.output("get", config, "--retry", "--timeout", timeout, show=True)
    seconds = time.perf_counter() - began
    how = "a cache hit: the store was not asked" if before else "fetched from the store and checked"
    say(f"{path}\n{seconds:.2f} s, {how}\n")


def is_here(demo: Demo) -> bool:
    """Whether the dataset is on this machine already."""
    import dscache
    from dscache import config
    from dscache.spec import load_spec

    client = dscache.Client(config.load(environ=demo.environ))
    return client.cache.find(load_spec(CONFIG).key) is not None


def farewell(demo: Demo, raw: Path) -> None:
    """Where to look at things, and how to stop them."""
    facts: dict[str, Any] = json.loads(demo.output("up", *demo.where, "--no-builder", "--json"))
    if facts["store_pid"] is not None:
        say(f"Web console   {facts['console']}")
        say(f"Log in with   user {facts['console_user']}, password {password(facts)}")
    program = spoken([str(demo.dscache)])
    where = f" {shlex.join(demo.where)}" if demo.where else ""
    say(f"Stop it all   {program} down{where}")
    say(f"Remove it     {program} down{where} --delete && rm -r {shlex.quote(str(raw))}")


def password(facts: Mapping[str, Any]) -> str:
    """The console's password on a terminal, elsewhere the file it is in."""
    file = Path(facts["directory"]) / "credentials.json"
    if not sys.stdout.isatty():
        return f"in {shorter(file)}, under client"
    return str(json.loads(file.read_bytes())["client"]["secret_key"])


def raw_folder(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/dscache/demo/photos`: outside the checkout, so that it may be moved."""
    home = Path(environ.get("HOME", "~")).expanduser()
    base = Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "dscache" / "demo" / "photos"


def prepare(given: argparse.Namespace) -> Demo:
    """Check that all that is needed is installed. Raises DemoError naming what is not."""
    for module, remedy in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise DemoError(
                f"{module} is not installed for {sys.executable}: `make`, or `{remedy}`"
            )
    program = Path(sys.executable).with_name("dscache")
    if not program.is_file():
        raise DemoError(f"there is no {program}: run `make`, or `pip install dscache`")
    environ = dict(os.environ)
    directory = given.directory.resolve() if given.directory else None
    if directory:
        environ["DSCACHE_PROFILE"] = OWN_PROFILE
    return Demo(program, environ, directory, given.epochs)


def spoken(argv: list[str]) -> str:
    """A command as one would type it here."""
    return shlex.join([spoken_path(Path(argv[0])), *argv[1:]])


def spoken_path(path: Path) -> str:
    """The path as seen from the working directory, where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def shorter(path: Path) -> str:
    """The path with ~ for the home directory, where it is below it."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def say(text: str) -> None:
    """A line on standard output, at once: programs that are run write there too."""
    print(text, flush=True)  # noqa: T201


@contextmanager
def ending() -> Iterator[None]:
    """Turn what stops the demo into one line and an exit code."""
    try:
        yield
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("\ndemo: interrupted; run it again to go on where it was\n")
        sys.exit(INTERRUPTED)


def main() -> None:
    """`run.py [--epochs N] [--directory DIR]`."""
    parser = argparse.ArgumentParser(description="dscache from raw data to a trained network.")
    parser.add_argument("--epochs", type=int, default=12, help="of training (default: 12)")
    parser.add_argument(
        "--directory", type=Path, help="of a stack of the demo's own (default: `dscache up`'s)"
    )
    given = parser.parse_args()
    if given.epochs < 1:
        parser.error(f"--epochs {given.epochs}: expected at least 1")
    with ending():
        story(prepare(given))


if __name__ == "__main__":
    main()
