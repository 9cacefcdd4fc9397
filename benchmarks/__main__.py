"""All benchmarks, one after the other: `python -m benchmarks`, or `make bench`.

The results replace the marked blocks of docs/benchmarks.md; the text around them is written by
hand. QUICK=1 shortens everything and prints the results instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import QUICK, machine

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "benchmarks.md"
SCRIPTS: dict[str, tuple[list[str], list[str]]] = {  # block → program, and its words when short
    "throughput": (["build", "--only", "throughput"], []),
    "tail": (["build", "--only", "tail"], []),
    "latency": (["build", "--only", "latency"], []),
    "download": (["download"], ["--mib", "64", "--runs", "1"]),
    "record_writer": (["record_writer"], ["--runs", "1"]),
}


def main() -> None:
    """Run them, print or write down what they say."""
    blocks = {"machine": f"{time.strftime('%Y-%m-%d')}: {machine()}."}
    for name, (words, short) in SCRIPTS.items():
        print(f"{name} …", file=sys.stderr, flush=True)
        program = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]
        program += short if QUICK else []
        done = subprocess.run(program, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"benchmarks.{words[0]} ended with {done.returncode}; see above")
        text = done.stdout.strip()
        blocks[name] = text if text.startswith("|") else f"```\n{text}\n```"
    if QUICK:
        print("\n\n".join(f"{name}\n\n{text}" for name, text in blocks.items()))
        return
    PAGE.write_text(with_blocks(PAGE.read_text(), blocks))
    print(f"written: {PAGE.relative_to(CHECKOUT)}; read what stands around the figures again")


def with_blocks(page: str, blocks: dict[str, str]) -> str:
    """The page with the text between `<!-- begin NAME -->` and `<!-- end NAME -->` replaced."""
    for name, text in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(page):
            sys.exit(f"docs/benchmarks.md has no {begin} … {end}")
        page = pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)  # noqa: B023 - called at once
    return page


if __name__ == "__main__":
    main()
