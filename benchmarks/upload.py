"""Compare the builder's upload of a dataset's zip with other tools.

    python -m benchmarks.upload [--mib 512] [--shards 8] [--runs 5] [--json]

Uses its own store. Every variant uploads the same zip, under a new name each time:

    dscache            parts of whole shards (`dscache_builder.attempt.parts`) from the shards'
                       files, with as many threads as a build, then the completion; no zip on disk
    curl -T            a single PUT to a presigned URL
    boto3              upload_file
    mc, rclone         cp, copyto

The others have their default settings and read the zip from a file. The variants run in a different
order in each round, after one warm-up in which the uploaded object is compared with the original.
Medians and spread of wall seconds, and CPU seconds of the client (with its children) and of the
server. `x curl` is throughput relative to curl; the target for ours is 0.95.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import blake3

from benchmarks.download import MIB, Run, server_cpu_s
from benchmarks.harness import QUICK, measured, spread, table, take_turns
from benchmarks.others import Others
from benchmarks.stack import own_store
from dscache.devstack.localstore import LocalStore
from dscache.protocol.manifests import ShardRecord
from dscache.store.s3 import Store
from dscache.store.upload import FilePiece
from dscache_builder.attempt import zip_writer
from dscache_builder.attempt.build import UPLOADS_IN_FLIGHT
from dscache_builder.attempt.parts import (
    FilledPart,
    FinishedShard,
    Packer,
    member_table,
    part_bytes,
)
from dscache_sdk.tfds import shard_name

TIMEOUT_S = 300


class Zip(NamedTuple):
    """The same bytes as parts of shards, and as a file."""

    parts: Sequence[FilledPart]
    file: Path
    size: int
    digest: str


class Bench(NamedTuple):
    """The zip, the store, and the other tools."""

    zip: Zip
    store: Store
    others: Others


Variant = Callable[[Bench, str], None]


def ours(bench: Bench, name: str) -> None:
    """Upload as a build does."""
    upload = bench.store.create_upload(name, {})

    def send(part: FilledPart) -> str:
        return bench.store.upload_part(name, upload, part.number, part.segments)

    with ThreadPoolExecutor(UPLOADS_IN_FLIGHT) as pool:
        etags = list(pool.map(send, bench.zip.parts))
    bench.store.complete_upload(name, upload, list(enumerate(etags, 1)))


def curl(bench: Bench, name: str) -> None:
    """Upload in a single PUT with curl."""
    place = {"Bucket": bench.store.bucket, "Key": name}
    url = bench.others.boto3().generate_presigned_url("put_object", place)
    subprocess.run(["curl", "-sS", "-f", "-T", str(bench.zip.file), url], check=True)


def boto3(bench: Bench, name: str) -> None:
    """Upload as a Python script would."""
    bench.others.boto3().upload_file(str(bench.zip.file), bench.store.bucket, name)


def mc(bench: Bench, name: str) -> None:
    """Upload with MinIO's client."""
    bench.others.mc("cp", str(bench.zip.file), bench.others.at_mc(name))


def rclone(bench: Bench, name: str) -> None:
    """Upload with rclone."""
    bench.others.rclone("copyto", str(bench.zip.file), bench.others.at_rclone(name))


OURS, CURL = "dscache, as the builder", "curl -T"
VARIANTS: dict[str, Variant] = {
    OURS: ours,
    CURL: curl,
    "boto3 upload_file": boto3,
    "mc cp": mc,
    "rclone copyto": rclone,
}


def make_zip(folder: Path, shards: int, shard_bytes: int) -> Zip:
    """Make random shards and pack them into parts as a builder does."""
    finished = [_shard(folder, index, shards, shard_bytes) for index in range(shards)]
    packer = Packer(next_part=1, next_shard=0)
    parts: list[FilledPart] = []
    for index, shard in enumerate(finished):
        parts += packer.add(index, shard, part_bytes(shards * shard_bytes))
    members = member_table(shard.record for shard in finished)
    parts.append(packer.last(zip_writer.central_directory(members)))
    path, digest = folder / "all.zip", blake3.blake3()
    with path.open("wb") as file:
        for segment in itertools.chain.from_iterable(part.segments for part in parts):
            data = segment.path.read_bytes() if isinstance(segment, FilePiece) else segment
            digest.update(data)
            file.write(data)
    return Zip(parts, path, path.stat().st_size, digest.hexdigest())


def _shard(folder: Path, index: int, count: int, size: int) -> FinishedShard:
    content = random.Random(index).randbytes(size)
    path = folder / shard_name("bench", "train", index, count)
    path.write_bytes(content)
    record = ShardRecord(
        name=path.name,
        size=size,
        crc32=zlib.crc32(content),
        digest=blake3.blake3(content).hexdigest(),
        records=1,
        split="train",
    )
    return FinishedShard(record, path)


def compare(bench: Bench, server: LocalStore, runs: int) -> dict[str, list[Run]]:
    """Warm up and check, then run the variants alternately."""
    checked: set[str] = set()
    numbers = itertools.count(1)

    def once(variant: str) -> Run:
        name = f"datasets/bench{next(numbers)}.zip"
        before = server_cpu_s(server)
        cost = measured(lambda: VARIANTS[variant](bench, name))
        after = server_cpu_s(server)
        if variant not in checked:
            checked.add(variant)
            assert digest_of(bench.store.presign_get(name)) == bench.zip.digest, variant
        bench.store.delete(name)
        return Run(cost, after - before)

    return take_turns({name: partial(once, name) for name in VARIANTS}, runs)


def digest_of(url: str) -> str:
    """Return the BLAKE3 digest of the object at a URL."""
    digest = blake3.blake3()
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        while data := response.read(MIB):
            digest.update(data)
    return digest.hexdigest()


def summary(results: dict[str, list[Run]], size: int) -> list[dict[str, Any]]:
    """Return medians, and throughput relative to curl."""
    mib = size / MIB
    reference = statistics.median(run.client.wall_s for run in results[CURL])
    rows = []
    for name, runs in results.items():
        wall = spread(run.client.wall_s for run in runs)
        client = statistics.median(run.client.cpu_s for run in runs)
        server = statistics.median(run.server_cpu_s for run in runs)
        rows.append(
            {
                "variant": name,
                "wall_s": wall._asdict(),
                "mib_per_s": mib / wall.median,
                "of_curl": reference / wall.median,
                "client_cpu_s_per_gib": client * 1024 / mib,
                "server_cpu_s_per_gib": server * 1024 / mib,
                "shown": wall.shown(),
            }
        )
    return rows


def shown(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    head = ["variant", "wall s", "MiB/s", "x curl", "client CPU s/GiB", "server CPU s/GiB"]
    lines = (
        [
            row["variant"],
            row["shown"],
            f"{row['mib_per_s']:.0f}",
            f"{row['of_curl']:.2f}",
            f"{row['client_cpu_s_per_gib']:.2f}",
            f"{row['server_cpu_s_per_gib']:.2f}",
        ]
        for row in rows
    )
    return table(head, lines)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=64 if QUICK else 512)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--runs", type=int, default=1 if QUICK else 5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with own_store() as (folder, server):
        made = make_zip(folder, options.shards, options.mib * MIB // options.shards)
        bench = Bench(made, Store(server.config), Others(server.config, folder / "others"))
        rows = summary(compare(bench, server, options.runs), made.size)
    print(json.dumps({"upload": rows}, indent=1) if options.json else shown(rows))


if __name__ == "__main__":
    main()
