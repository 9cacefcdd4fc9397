"""Run all benchmarks: `make bench`; or some: `python -m benchmarks [BLOCK …]`.

Each result replaces its marked block of docs/benchmarks.md as soon as it is available; the text
around the blocks is written by hand. QUICK=1 shortens everything and only prints the results. If a
script fails, only its own block is missing.
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
SCRIPTS = {  # block → module and its arguments
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
    """Run the named blocks, or all; exit with 1 if any failed, and name them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("blocks", nargs="*", metavar="BLOCK", help=f"one of {', '.join(SCRIPTS)}")
    wanted = parser.parse_args().blocks or list(SCRIPTS)
    if unknown := set(wanted) - set(SCRIPTS):
        parser.error(f"no block {', '.join(sorted(unknown))}; available: {', '.join(SCRIPTS)}")
    if len(wanted) == len(SCRIPTS):
        save(MACHINE, f"{time.strftime('%Y-%m-%d')}: {machine()}.")
    failed = [name for name in wanted if not run(name)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str) -> bool:
    """Run one script and save its output; return whether it succeeded."""
    module, *arguments = SCRIPTS[name]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    status = "" if done.returncode == 0 else f", exit code {done.returncode}; see above"
    print(f"{name}: {time.monotonic() - began:.0f} s{status}", file=sys.stderr, flush=True)
    if done.returncode == 0:
        save(name, done.stdout.strip())
    return done.returncode == 0


def save(name: str, text: str) -> None:
    """Write a block to the page; with QUICK, print it."""
    if QUICK:
        print(f"{name}\n\n{text}\n", flush=True)
    else:
        PAGE.write_text(with_block(PAGE.read_text(), name, text))


def with_block(page: str, name: str, text: str) -> str:
    """Return the page with the text from `<!-- begin NAME -->` to `<!-- end NAME -->` replaced."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{PAGE.name} has no {begin} … {end}")
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)


if __name__ == "__main__":
    main()
