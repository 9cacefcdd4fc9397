"""All benchmarks, one after the other: `make bench`, or `python -m benchmarks [BLOCK …]` for some.

The results replace the marked blocks of docs/benchmarks.md, each as soon as it is there; the text
around them is written by hand. QUICK=1 shortens everything and prints the results instead. A script
that fails costs nothing but its own block.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import QUICK, machine

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "benchmarks.md"
MACHINE = "machine"
SCRIPTS = {  # block → module and its words
    "startup": ["startup"],
    "notify": ["notify"],
    "download": ["download"],
    "slow_link": ["slow_link"],
    "upload": ["upload"],
    "throughput": ["build", "--only", "throughput"],
    "tail": ["build", "--only", "tail"],
    "latency": ["build", "--only", "latency"],
    "record_writer": ["record_writer"],
    "reading": ["reading"],
    "listing": ["listing"],
    "growth": ["growth"],
}


def main() -> None:
    """Run the blocks that are named, or all; exit with 1 at the end if any failed, naming it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("blocks", nargs="*", metavar="BLOCK", help=f"of {', '.join(SCRIPTS)}")
    wanted = parser.parse_args().blocks or list(SCRIPTS)
    if unknown := set(wanted) - set(SCRIPTS):
        parser.error(f"no block {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    if len(wanted) == len(SCRIPTS):
        keep(MACHINE, f"{time.strftime('%Y-%m-%d')}: {machine()}.")
    failed = [name for name in wanted if not run(name)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str) -> bool:
    """Run one script and keep what it says; whether it succeeded."""
    module, *words = SCRIPTS[name]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *words],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    ended = "" if done.returncode == 0 else f", ended with {done.returncode}; see above"
    print(f"{name}: {time.monotonic() - began:.0f} s{ended}", file=sys.stderr, flush=True)
    if done.returncode == 0:
        keep(name, done.stdout.strip())
    return done.returncode == 0


def keep(name: str, text: str) -> None:
    """Write the text of a block down, or print it when QUICK."""
    if QUICK:
        print(f"{name}\n\n{text}\n", flush=True)
    else:
        PAGE.write_text(with_block(PAGE.read_text(), name, text))


def with_block(page: str, name: str, text: str) -> str:
    """The page with what is between `<!-- begin NAME -->` and `<!-- end NAME -->` replaced."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{PAGE.name} has no {begin} … {end}")
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)


if __name__ == "__main__":
    main()
