"""Measure how costs grow with the shards of a dataset and the datasets in the local cache.

    python -m benchmarks.growth [--counts 10,100,1000,10000] [--runs 5] [--json]

Uses its own store. For listing a bucket see `benchmarks.listing`.

shards    a dataset of COUNT shards of 4 KiB: `dscache get` into an empty cache, as a separate
          process, with its peak memory; decoding and encoding its ready marker (medians)
datasets  COUNT datasets of 12 empty shards in the local cache: `dscache get` of one of them, and
          `dscache cache ls`, as separate processes
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    DSCACHE,
    QUICK,
    Cost,
    measured,
    output_of,
    spread,
    table,
    take_turns,
)
from benchmarks.listing import marker
from benchmarks.stack import client_environ, own_store
from dscache.config import Config
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.store.s3 import Store

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.datasets import publish, random_files

SHARD_BYTES = 4096
# A small process in between: the peak of a child is at least what its parent had when it started.
CHILD = """
import resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
wall_s, usage = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


# -- shards in one dataset


def shards(config: Config, home: Path, count: int, runs: int) -> dict[str, Any]:
    """Measure a dataset of `count` shards."""
    live = publish(Store(config), random_files([SHARD_BYTES] * count), config={"shards": count})
    environ = client_environ(config._replace(home=home))
    taken = []
    for _ in range(runs + 1):
        shutil.rmtree(home, ignore_errors=True)
        taken.append(_get(live.spec.key, environ))
    body = manifests.encode(live)
    return {
        "count": count,
        "get_s": spread(wall_s for wall_s, _, _ in taken[1:]),
        "cpu_s": spread(cpu_s for _, cpu_s, _ in taken[1:]),
        "peak_mib": spread(peak for _, _, peak in taken[1:]),
        "marker_kib": len(body) / 1024,
        "decode_ms": _median_ms(lambda: manifests.decode(body, Live, where=""), runs),
        "encode_ms": _median_ms(lambda: manifests.encode(live), runs),
    }


def _get(key: str, environ: dict[str, str]) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak MiB of `dscache get`."""
    argv = [sys.executable, "-c", CHILD, DSCACHE, "get", key]
    wall_s, cpu_s, peak_kib = map(float, output_of(argv, environ).split())
    return wall_s, cpu_s, peak_kib / 1024


def _median_ms(action: Callable[[], object], runs: int) -> float:
    return spread(measured(action).wall_s for _ in range(runs)).median * 1000


def shards_table(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    head = (
        "shards", "`dscache get`, s", "CPU s", "wall ms a shard", "peak MiB", "marker, KiB",
        "decode, ms", "encode, ms",
    )  # fmt: skip
    shown = [
        (
            f"{row['count']:,}",
            row["get_s"].shown(),
            row["cpu_s"].shown(),
            f"{row['get_s'].median * 1000 / row['count']:.2f}",
            row["peak_mib"].shown(0),
            f"{row['marker_kib']:,.0f}",
            f"{row['decode_ms']:.2f}",
            f"{row['encode_ms']:.2f}",
        )
        for row in rows
    ]
    return table(head, shown)


# -- datasets in the local cache


def fill(home: Path, numbers: range) -> None:
    """Add datasets to a local cache as `dscache get` does, but with empty files."""
    (home / "used").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        live = marker(number)
        folder = home / "datasets" / live.spec.key
        folder.mkdir(parents=True)
        for member in live.members:
            (folder / member.name).touch()
        (folder / "manifest.json").write_bytes(manifests.encode(live))
        (home / "used" / live.spec.key).touch()


def datasets(environ: dict[str, str], runs: int) -> dict[str, list[Cost]]:
    """Measure a hit and a listing."""
    commands = {"get": ("get", marker(0).spec.key), "cache ls": ("cache", "ls")}
    return take_turns(
        {
            name: partial(measured, partial(output_of, [DSCACHE, *each], environ))
            for name, each in commands.items()
        },
        runs,
    )


def datasets_table(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    head = ("cached datasets", "`get`, ms", "CPU ms", "`cache ls`, s", "ms a dataset")
    shown = [
        (
            f"{row['count']:,}",
            row["get_ms"].shown(0),
            row["get_cpu_ms"].shown(0),
            row["ls_s"].shown(),
            f"{row['ls_s'].median * 1000 / row['count']:.2f}",
        )
        for row in rows
    ]
    return table(head, shown)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", default="10,100,1000" if QUICK else "10,100,1000,10000")
    parser.add_argument("--runs", type=int, default=1 if QUICK else 5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    with own_store() as (folder, server):
        config, home = server.config, folder / "home"
        results: dict[str, Any] = {
            "shards": [shards(config, home, count, options.runs) for count in counts],
            "datasets": [],
        }
        done, many = 0, folder / "many"
        environ = client_environ(config._replace(home=many))
        for count in counts:
            fill(many, range(done, count))
            done = count
            costs = datasets(environ, options.runs)
            results["datasets"].append(
                {
                    "count": count,
                    "get_ms": spread(cost.wall_s * 1000 for cost in costs["get"]),
                    "get_cpu_ms": spread(cost.cpu_s * 1000 for cost in costs["get"]),
                    "ls_s": spread(cost.wall_s for cost in costs["cache ls"]),
                }
            )
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{shards_table(results['shards'])}\n\n{datasets_table(results['datasets'])}")


if __name__ == "__main__":
    main()
