"""Measure `dscache ls` as the number of datasets in the bucket grows.

    python -m benchmarks.listing [--datasets 100,1000,10000,100000] [--runs 5] [--json]

Each dataset is a ready marker of 12 shards and an empty zip, log and preview. They are uploaded as
tar files that the store unpacks, which is the fastest way. The commands run as separate processes,
so every figure includes Python's start. From 100,000 datasets on, each command runs once, and
`ls --all`, which reads every marker, is left out.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from minio import Minio
from minio.commonconfig import SnowballObject

from benchmarks.harness import DSCACHE, QUICK, Cost, measured, output_of, spread, table, take_turns
from benchmarks.stack import client_environ, own_store
from dscache.config import Config
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Live, Member, Timings
from dscache.spec import Spec

SHARDS = 12
SHOWN = 50  # lines of `dscache ls` without an option
HUGE = 100_000
DATASETS_PER_TAR = 500
SENDERS = 3
COMMANDS = {"ls": ("ls",), "ls --keys": ("ls", "--keys"), "ls --all": ("ls", "--all")}


def marker(number: int) -> Live:
    """Return the ready marker of the dataset with this number."""
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


def objects(live: Live) -> dict[str, bytes]:
    """Return the objects of a dataset, by name."""
    key = live.spec.key
    empty = dict.fromkeys((live.zip_key, layout.log(key), layout.preview(key)), b"")
    return {**empty, layout.ready(key): manifests.encode(live)}


def fill(config: Config, numbers: range) -> None:
    """Upload the datasets with these numbers."""
    starts = range(numbers.start, numbers.stop, DATASETS_PER_TAR)
    tars = [range(at, min(at + DATASETS_PER_TAR, numbers.stop)) for at in starts]
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(partial(_send, config), tars))


def _send(config: Config, numbers: range) -> None:
    client = Minio(
        endpoint=urlsplit(config.endpoint).netloc,
        access_key=config.access_key,
        secret_key=config.secret_key,
        secure=False,
    )
    client.upload_snowball_objects(
        bucket_name=config.bucket,
        object_list=[
            SnowballObject(name, data=io.BytesIO(body), length=len(body))
            for number in numbers
            for name, body in objects(marker(number)).items()
        ],
    )


def command(arguments: tuple[str, ...], environ: dict[str, str], lines: int) -> Callable[[], Cost]:
    """Return a run of `dscache` that must print `lines` lines."""
    output: list[bytes] = []

    def checked() -> Cost:
        cost = measured(lambda: output.append(output_of([DSCACHE, *arguments], environ)))
        if (printed := output.pop().count(b"\n")) != lines:
            raise SystemExit(f"{' '.join(arguments)} printed {printed} lines, not {lines}")
        return cost

    return checked


def listed(environ: dict[str, str], count: int, runs: int) -> dict[str, list[Cost]]:
    """Measure the commands with `count` datasets in the bucket."""
    variants = {
        name: command(arguments, environ, min(count, SHOWN) if name == "ls" else count)
        for name, arguments in COMMANDS.items()
        if count < HUGE or name != "ls --all"
    }
    if count >= HUGE:
        return {name: [once()] for name, once in variants.items()}
    return take_turns(variants, runs)


def report(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    head = ("`dscache`", "datasets", "seconds", "s per 1,000 datasets", "CPU s of the client")
    shown = []
    for row in rows:
        per_1000 = row["wall_s"].median * 1000 / row["datasets"]
        cpu = row["cpu_s"].shown() if "cpu_s" in row else ""
        cells = (f"{row['datasets']:,}", row["wall_s"].shown(), f"{per_1000:.2f}", cpu)
        shown.append((row["command"], *cells))
    return table(head, shown)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", default="100,1000" if QUICK else "100,1000,10000,100000")
    parser.add_argument("--runs", type=int, default=1 if QUICK else 3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with own_store() as (folder, server):
        environ = client_environ(server.client_config._replace(home=folder / "home"))
        done = 0
        for count in map(int, options.datasets.split(",")):
            filled = measured(partial(fill, server.config, range(done, count)))
            filling = {"command": f"filling, from {done:,} on", "datasets": count}
            rows.append({**filling, "wall_s": spread([filled.wall_s])})
            done = count
            for name, costs in listed(environ, count, options.runs).items():
                wall, cpu = spread(c.wall_s for c in costs), spread(c.cpu_s for c in costs)
                rows.append({"command": name, "datasets": count, "wall_s": wall, "cpu_s": cpu})
    print(json.dumps(rows, indent=1) if options.json else report(rows))


if __name__ == "__main__":
    main()
