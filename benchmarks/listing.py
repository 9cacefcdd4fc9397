"""Measure `dscache ls` and `dscache cache ls` as the number of datasets grows.

    python -m benchmarks.listing [--datasets 100,1000,10000] [--runs 5] [--json]

Each dataset in the bucket is a ready marker of 12 shards, a zip, a log and a preview (the last
three without content); each in the local cache a folder of 12 shards, also empty. The commands run
as processes of their own, so Python's start is part of every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import QUICK, Cost, measured, spread, table, take_turns
from dscache import layout, manifests
from dscache.devstack.build import ensure_binary
from dscache.devstack.localstore import LocalStore
from dscache.manifests import Live, Member, Timings
from dscache.spec import Spec
from dscache.store import Store

SHARDS = 12
WRITERS = 16
COMMANDS = {
    "ls": ("ls",),
    "ls --keys": ("ls", "--keys"),
    "ls --all": ("ls", "--all"),
    "cache ls": ("cache", "ls"),
}


def marker(number: int) -> Live:
    """The ready marker of the dataset with this number."""
    spec = Spec.of("photos", "1.0.0", {"number": number, "image_size": [1024, 1024]})
    members = [
        Member(
            name=f"photos-train.tfrecord-{index:05d}-of-{SHARDS:05d}",
            offset=index << 27,
            size=1 << 27,
            crc32=index,
            digest="0" * 64,
            records=800,
            split="train",
        )
        for index in range(SHARDS)
    ]
    return Live(
        spec=spec,
        generation=0,
        zip_key=layout.archive(spec.key, 0),
        zip_etag="0" * 32,
        zip_size=SHARDS << 27,
        seal="",
        members=members,
        timings=Timings(finished_at=1.7e9 + number),
    )


def fill(store: Store, home: Path, numbers: range) -> None:
    """Add these datasets to the bucket and to the local cache."""

    def one(number: int) -> None:
        live = marker(number)
        key, body = live.spec.key, manifests.encode(live)
        for name in (layout.log(key), layout.preview(key), live.zip_key):
            store.put(name, b"")
        store.put(layout.ready(key), body)
        folder = home / "datasets" / key
        folder.mkdir(parents=True)
        for member in live.members:
            (folder / member.name).touch()
        (folder / "manifest.json").write_bytes(body)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(one, numbers))


def command(words: tuple[str, ...], environ: dict[str, str], lines: int) -> Callable[[], Cost]:
    """Run `dscache` with these words; it must print that many lines."""
    program = [sys.executable, "-c", "from dscache.cli import main; main()", *words]
    output: list[bytes] = []

    def run() -> None:
        output.append(subprocess.run(program, env=environ, check=True, capture_output=True).stdout)

    def checked() -> Cost:
        cost = measured(run)
        if (printed := output.pop().count(b"\n")) != lines:
            raise SystemExit(f"{' '.join(words)} printed {printed} lines, not {lines}")
        return cost

    return checked


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", default="100,1000" if QUICK else "100,1000,10000")
    parser.add_argument("--runs", type=int, default=1 if QUICK else 5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    binary = ensure_binary(os.environ, lambda line: print(line, file=sys.stderr))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        with LocalStore(Path(scratch) / "store", binary) as server:
            config, done = server.client_config, 0
            environ = {
                "PATH": os.environ["PATH"],
                "HOME": scratch,
                "DSCACHE_HOME": str(home),
                "DSCACHE_ENDPOINT": config.endpoint,
                "DSCACHE_BUCKET": config.bucket,
                "DSCACHE_ACCESS_KEY": config.access_key,
                "DSCACHE_SECRET_KEY": config.secret_key,
            }
            for count in map(int, options.datasets.split(",")):
                fill(Store(server.config), home, range(done, count))
                done = count
                variants = {
                    name: command(words, environ, min(count, 50) if name == "ls" else count)
                    for name, words in COMMANDS.items()
                }
                for name, costs in take_turns(variants, options.runs).items():
                    wall, cpu = spread(c.wall_s for c in costs), spread(c.cpu_s for c in costs)
                    rows.append({"command": name, "datasets": count, "wall_s": wall, "cpu_s": cpu})
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    shown = [
        (row["command"], f"{row['datasets']:,}", row["wall_s"].shown(), row["cpu_s"].shown())
        for row in rows
    ]
    print(table(("`dscache`", "datasets", "seconds", "CPU s of the client"), shown))


if __name__ == "__main__":
    main()
