"""Measure builds: throughput, time after the last sample, latency of small builds, memory.

    python -m benchmarks.build [--runs 3] [--only throughput,tail,latency] [--json]

Uses its own store and builder (2 workers). QUICK=1 shortens everything.

throughput  photos (JPEG in, resize, crop, flip, exposure, JPEG out; without rotation and with up
            to 10 degrees), 2 variations of each image:
              bare      the handler's load and example, and the image compression, in 2 processes
                        that discard the results
              shards    the same processes write the shards with checksums
              dscache   a build, from the first shard to the seal (`timings.build_s`); its CPU
                        seconds are those of `shards` plus those of the builder's process
              TensorFlow  one process: the handler, TFRecordWriter, zipfile, boto3's upload_file
tail        incompressible records of 200 KB, 64 in a file: seconds from the end of the last sample
            until a listener learns of the ready marker, and the peak memory of the builder's
            process, for two dataset sizes
latency     seconds from the request to the start of the first sample, and of `dscache get` of ten
            images, as a separate process; environments are warm, every run is a new dataset

Variants run in a different order in each round, after one warm-up; medians and extremes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import (
    DSCACHE,
    QUICK,
    Cost,
    Spread,
    cpu_of,
    output_of,
    spread,
    table,
    take_turns,
)
from benchmarks.images import make_images
from benchmarks.stack import Ready, Stack, client_environ, stack
from dscache.client import Client
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Live
from dscache.spec import load_spec
from dscache_builder.child_environ import handler_environment

WORKERS = 2
IMAGES = 40 if QUICK else 400
RECORD_BYTES = 200_000
TAIL_GB = (0.05, 0.2) if QUICK else (0.2, 2.0)
WORK_MS = 6  # CPU time of an example, as for an image of that size
ROTATIONS = (0, 10)
SMALL = 10
OWN_SCRIPT = "benchmarks.build_process"


class Tail(NamedTuple):
    """One build of `speed`."""

    after_last_s: float
    total_s: float
    builder_rss: int
    handler_rss: int


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1 if QUICK else 3)
    parser.add_argument("--only", default="throughput,tail,latency")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="dscache-bench-raw-") as name:
        raw = make_images(Path(name) / "photos", IMAGES)
        few = make_images(Path(name) / "few", SMALL)
        results: dict[str, Any] = {}
        if "throughput" in wanted:
            with stack({"photos": raw}, WORKERS) as made:
                results["throughput"] = [
                    throughput(made, raw, rotation, options.runs) for rotation in ROTATIONS
                ]
        if "tail" in wanted or "latency" in wanted:
            with stack({"photos": few}, WORKERS) as made:
                if "tail" in wanted:
                    results["tail"] = tail(made, options.runs)
                if "latency" in wanted:
                    results["latency"] = latency(made, 2 * options.runs)
    print(json.dumps(results, indent=1) if options.json else shown(results))


# -- throughput


def photos_options(rotation: int, seed: int) -> dict[str, Any]:
    """The dataset_config of the workload."""
    return {
        "image_size": [1024, 1024],
        "crop_size": [800, 800],
        "flip": 0.5,
        "exposure": 0.5,
        "rotation": rotation,
        "variations_per_sample": 2,
        "batch_size": 20,
        "seed": seed,
    }


def throughput(made: Stack, raw: Path, rotation: int, runs: int) -> dict[str, Any]:
    """Measure wall and CPU seconds of each variant, for one rotation."""
    serial = iter(range(1, 1000))
    variants: dict[str, Callable[[], Cost]] = {
        "bare": lambda: _processes(made, raw, rotation, "bare"),
        "shards": lambda: _processes(made, raw, rotation, "shards"),
        "dscache": lambda: _our_build(made, rotation, next(serial)),
    }
    costs = take_turns(variants, runs)
    shards_cpu_s = statistics.median(cost.cpu_s for cost in costs["shards"])
    costs["dscache"] = [Cost(c.wall_s, c.cpu_s + shards_cpu_s) for c in costs["dscache"]]
    costs["TensorFlow"] = [_tensorflow(made, raw, rotation) for _ in range(min(runs, 2))]
    examples = 2 * len(list(raw.iterdir()))
    rows = {
        name: {
            "wall_s": spread(cost.wall_s for cost in each),
            "cpu_s": spread(cost.cpu_s for cost in each),
        }
        for name, each in costs.items()
    }
    return {"rotation": rotation, "examples": examples, "variants": rows}


def _processes(made: Stack, raw: Path, rotation: int, mode: str) -> Cost:
    """Run processes that start at the same time; each prints its CPU seconds."""
    with tempfile.TemporaryDirectory(dir=made.folder) as name:
        environ = handler_environment(Path(sys.executable), Path(name), os.environ)
        environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        options = json.dumps(photos_options(rotation, 0))
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", OWN_SCRIPT, mode, options, str(raw), f"{part}/{WORKERS}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environ,
                cwd=name,
            )
            for part in range(WORKERS)
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # imported and planned
        began = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate() for process in processes]
        wall_s = time.perf_counter() - began
        return Cost(wall_s, sum(float(out) for out, _ in outputs))


def _our_build(made: Stack, rotation: int, seed: int) -> Cost:
    """Return wall seconds from the first shard to the seal, and the builder's CPU seconds."""
    assert made.process is not None
    made.settle()
    before = cpu_of(made.process.pid) or 0.0
    live = _built(made, made.spec("photos", made.version, photos_options(rotation, seed)))
    cpu_s = (cpu_of(made.process.pid) or 0.0) - before
    made.store.delete(live.zip_key)
    return Cost(live.timings.build_s, cpu_s)


def _built(made: Stack, cfg: Path) -> Live:
    client = Client(made.client)
    key = client.wait(cfg)
    stored = made.store.get(layout.ready(key))
    assert stored is not None
    live = manifests.decode_ready(stored.body, where=key)
    assert isinstance(live, Live)
    return live


def _tensorflow(made: Stack, raw: Path, rotation: int) -> Cost:
    config = made.server.config
    store = json.dumps(
        [config.endpoint, config.region, config.access_key, config.secret_key, config.bucket]
    )
    with tempfile.TemporaryDirectory(dir=made.folder) as name:
        done = subprocess.run(
            [
                sys.executable, "-m", OWN_SCRIPT, "tensorflow",
                json.dumps(photos_options(rotation, 0)), str(raw), "0/1", store,
            ],
            input="go\n", capture_output=True, text=True, check=True, cwd=name,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )  # fmt: skip
    wall_s, cpu_s = map(float, done.stdout.split()[1:])
    return Cost(wall_s, cpu_s)


# -- the end of a build, and memory


def tail(made: Stack, runs: int) -> list[dict[str, Any]]:
    """Measure each dataset size."""
    serial = iter(range(1, 1000))
    small, large = TAIL_GB
    cases = {
        f"{small:g} GB, {WORK_MS} ms of work an example": (small, WORK_MS),
        f"{large:g} GB, {WORK_MS} ms of work an example": (large, WORK_MS),
        f"{large:g} GB, no work: records as fast as they can be made": (large, 0),
    }
    taken = take_turns(
        {name: partial(_tail, made, *case, serial) for name, case in cases.items()}, runs
    )
    return [
        {
            "dataset": name,
            "after_last_s": spread(one.after_last_s for one in each),
            "total_s": spread(one.total_s for one in each),
            "builder_rss_mib": spread(one.builder_rss / 2**20 for one in each),
            "handler_rss_mib": spread(one.handler_rss / 2**20 for one in each),
        }
        for name, each in taken.items()
    ]


def _tail(made: Stack, size_gb: float, work_ms: int, serial: Iterator[int]) -> Tail:
    options = speed_options(round(size_gb * 1e9 / RECORD_BYTES), work_ms, next(serial))
    requested_at, ready_at, times, usage = _speed_build(made, options)
    return Tail(ready_at - times[-1], ready_at - requested_at, usage.builder_rss, usage.handler_rss)


def speed_options(examples: int, work_ms: int, run: int) -> dict[str, Any]:
    """Return all options of `speed`: a spec that leaves one out is an alias, and is answered before
    anything is built."""
    return {
        "examples": examples,
        "bytes": RECORD_BYTES,
        "batch_size": 64,
        "work_ms": work_ms,
        "run": run,
    }


def _speed_build(made: Stack, options: dict[str, Any]) -> tuple[float, float, list[float], Any]:
    """Return (requested at, ready at, times at which samples started and ended, usage)."""
    for file in made.raw.iterdir():
        file.unlink()
    spec = load_spec(made.spec("speed", "1.0.0", options))
    client = Client(made.client)
    made.settle()
    with Ready(made.server.config, spec.key) as ready, made.watched() as usage:
        requested_at = time.time()
        client.request(spec)
        ready_at = ready.wait()
    times = sorted(float(t) for f in made.raw.iterdir() for t in f.read_text().split())
    made.store.delete(layout.archive(spec.key, 0))
    return requested_at, ready_at, times, usage


# -- latency


def latency(made: Stack, runs: int) -> dict[str, Any]:
    """Measure seconds until the first sample starts, and of `dscache get` of ten images."""
    serial = iter(range(10_000, 20_000))

    def first() -> tuple[float, ...]:
        requested_at, _, times, _ = _speed_build(made, speed_options(SMALL, 0, next(serial)))
        return (times[0] - requested_at,)

    variants: dict[str, Callable[[], tuple[float, ...]]] = {
        "first": first,
        "get": lambda: _get(made, next(serial)),
    }
    taken = take_turns(variants, runs)
    return {
        "first_sample_s": spread(one[0] for one in taken["first"]),
        "get_s": spread(one[0] for one in taken["get"]),
        "hit_s": spread(one[1] for one in taken["get"]),
    }


def _get(made: Stack, seed: int) -> tuple[float, float]:
    """Return the seconds of two processes: the first causes the build, the second is a hit."""
    cfg = made.spec("photos", made.version, photos_options(10, seed))
    config = made.client
    made.settle()
    get = [DSCACHE, "get", str(cfg)]
    began = time.perf_counter()
    output_of(get, client_environ(config))
    built_at = time.perf_counter()
    output_of(get, client_environ(config))
    return built_at - began, time.perf_counter() - built_at


# -- the report


def shown(results: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = [_throughput_table(one) for one in results.get("throughput", ())]
    if "tail" in results:
        parts.append(_tail_table(results["tail"]))
    if "latency" in results:
        parts.append(_latency_table(results["latency"]))
    return "\n\n".join(parts)


def _throughput_table(one: dict[str, Any]) -> str:
    variants = one["variants"]
    bare = variants["bare"]
    rows = [
        [
            name,
            spread_of(found["wall_s"]).shown(),
            f"{bare['wall_s'][0] / found['wall_s'][0]:.2f}",
            spread_of(found["cpu_s"]).shown(),
            f"{100 * (found['cpu_s'][0] / bare['cpu_s'][0] - 1):+.1f} %",
        ]
        for name, found in variants.items()
    ]
    head = [
        f"rotation {one['rotation']}, {one['examples']} examples", "wall s",
        "speed ÷ bare", "CPU s", "CPU on top",
    ]  # fmt: skip
    return table(head, rows)


def _tail_table(rows: list[dict[str, Any]]) -> str:
    head = [
        "dataset", "last sample → ready known, ms", "whole build, s",
        "builder RSS, MiB", "handler processes RSS, MiB",
    ]  # fmt: skip
    body = [
        [
            row["dataset"],
            spread_of([1000 * figure for figure in row["after_last_s"]]).shown(0),
            spread_of(row["total_s"]).shown(1),
            spread_of(row["builder_rss_mib"]).shown(0),
            spread_of(row["handler_rss_mib"]).shown(0),
        ]
        for row in rows
    ]
    return table(head, body)


def _latency_table(found: dict[str, Any]) -> str:
    names = {
        "first_sample_s": "request → first sample begun",
        "get_s": "`dscache get`, ten pictures, built",
        "hit_s": "`dscache get`, cached here",
    }
    rows = [[names[name], spread_of(figures).shown()] for name, figures in found.items()]
    return table(["", "s"], rows)


def spread_of(figures: Any) -> Spread:
    """Make a spread of its three figures."""
    return Spread(*figures)


if __name__ == "__main__":
    main()
