"""`make stress`: decode mutated inputs for some seconds, and save what fails.

    python -m fuzz --seconds 60 [--seed N] [--seeds COUNT] [--only NAME] [--to FOLDER]
    python -m fuzz --replay FILE    decode one saved input again

Exits with 1 if anything was found. A found input is in a file named after its decoder.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from fuzz.decoders import decoders
from fuzz.mutation import large, mutated
from fuzz.running import Decoder, limited_memory, problem

LARGE_EVERY = 50
LARGE_BYTES = 1 << 20


def main(arguments: list[str] | None = None) -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--seeds", type=int, default=10**9, help="inputs of each decoder, at most")
    parser.add_argument("--only", default="", help="decoders whose names contain this")
    parser.add_argument("--to", type=Path, default=Path("build/stress"))
    parser.add_argument("--replay", type=Path, help="a saved input")
    options = parser.parse_args(arguments)
    table = [decoder for decoder in decoders() if options.only in decoder.name]
    if options.replay is not None:
        return replay(table, options.replay)
    seeds = range(options.seed, options.seed + options.seeds)
    return stress(table, options.seconds, seeds, options.to)


def stress(table: Sequence[Decoder], seconds: float, seeds: Iterable[int], to: Path) -> int:
    """Decode inputs of all decoders in turn, for so long; return 1 if anything was found.

    Input number n of a decoder depends on n alone, so a run with the same seed repeats it.
    """
    started, executions, found = time.monotonic(), 0, set[tuple[str, str]]()
    with limited_memory():
        for number in seeds:
            for decoder in table:
                data = _input(decoder, number)
                executions += 1
                what = problem(decoder, data)
                if what is not None and (decoder.name, what.kind) not in found:
                    found.add((decoder.name, what.kind))
                    print(f"{decoder.name}: {what.kind}: {what.message}", flush=True)
                    print(f"  {_saved(decoder, data, to)}", flush=True)
            if time.monotonic() - started >= seconds:
                break
    spent_s = time.monotonic() - started
    print(
        f"{executions} inputs of {len(table)} decoders in {spent_s:.0f} s "
        f"({executions / spent_s:.0f} a second), up to seed {number}: {len(found)} found"
    )
    return 1 if found else 0


def _input(decoder: Decoder, number: int) -> bytes:
    rng = random.Random(f"{decoder.name} {number}")
    seed = rng.choice(decoder.seeds)
    if number % LARGE_EVERY:
        return mutated(seed, decoder.form, rng)
    return rng.choice(large(seed, decoder.form, LARGE_BYTES))()


def replay(table: Sequence[Decoder], path: Path) -> int:
    """Decode one saved input again; return 1 if it still fails."""
    name = path.name.rpartition("-")[0]
    decoder = next(decoder for decoder in table if decoder.name == name)
    what = problem(decoder, path.read_bytes())
    print(f"{name}: {what.kind}: {what.message}" if what else f"{name}: nothing is wrong")
    return 1 if what else 0


def _saved(decoder: Decoder, data: bytes, to: Path) -> str:
    to.mkdir(parents=True, exist_ok=True)
    path = to / f"{decoder.name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return f"saved; again with: python -m fuzz --replay {path}"


if __name__ == "__main__":
    logging.disable()  # Pillow's words about damaged files
    sys.exit(main())
