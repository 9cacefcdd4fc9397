"""Compare our download (ranges, CRC-32 and BLAKE3 checked, unpacked, synced) with what people use.

    python -m benchmarks.download [--mib 512] [--shards 8] [--runs 5] [--folder DIR] [--json]

It starts a store of its own and uploads one zip in parts of 64 MiB. Variants:

    dscache 1, 2, auto   `dscache.download.download` with that many ranges: verified and synced
    dscache, no sync     the same (auto) without fdatasync, which none of the others does either
    curl + unzip         checks CRC-32 while unpacking; the zip is written first
    boto3 + zipfile      download_file, then extractall, which checks CRC-32
    socket, new          the limit: recv_into and pwrite of each shard's range into new files with
                         their space allocated, one connection, nothing verified
    socket, existing     the same into files that were written before

They take turns in a different order each round, after one warm-up round; medians and the spread of
wall seconds, and CPU seconds of the client (of its children for curl and unzip). Files are compared
with the original in the warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import urlsplit

import blake3
import boto3

from benchmarks.harness import Cost, measured, spread, take_turns
from dscache import layout
from dscache.devstack.build import ensure_binary
from dscache.devstack.localstore import LocalStore
from dscache.download import download
from dscache.manifests import Live, Member
from dscache.spec import Spec
from dscache.store import Store
from dscache.transfer import FileRun

MIB = 1 << 20
PART_MIB = 64
LOCAL_HEADER_BYTES = 30
CHUNK_BYTES = 256 << 10
BUFFER = memoryview(bytearray(CHUNK_BYTES))


class Bench(NamedTuple):
    """The published dataset, and how to reach it."""

    live: Live
    store: Store

    def url(self) -> str:
        """A fresh presigned URL of the zip."""
        return self.store.presign_get(self.live.zip_key)


Variant = Callable[[Bench, Path], None]


def ours(parallel: int | None) -> Variant:
    """Our download with so many ranges."""

    def run(bench: Bench, folder: Path) -> None:
        download(bench.live, folder, bench.url, parallel=parallel)

    return run


def ours_unsynced(bench: Bench, folder: Path) -> None:
    """Our download without waiting for the disk, for comparison only."""
    with mock.patch("os.fdatasync"):
        download(bench.live, folder, bench.url)


def curl_unzip(bench: Bench, folder: Path) -> None:
    """What a shell script does."""
    folder.mkdir()
    archive = folder / "all.zip"
    subprocess.run(["curl", "-sS", "-f", "-o", str(archive), bench.url()], check=True)
    subprocess.run(["unzip", "-q", str(archive), "-d", str(folder)], check=True)
    archive.unlink()


def boto3_zipfile(bench: Bench, folder: Path) -> None:
    """What a Python script does, with boto3's defaults."""
    folder.mkdir()
    archive = folder / "all.zip"
    config = bench.store.config
    client = boto3.client(
        "s3",
        endpoint_url=config.endpoint,
        region_name=config.region,
        aws_access_key_id=config.access_key,
        aws_secret_access_key=config.secret_key,
    )
    client.download_file(config.bucket, bench.live.zip_key, str(archive))
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    archive.unlink()


def raw_socket(existing: bool) -> Variant:
    """The least a Python process can do: one connection, one range for each shard."""

    def run(bench: Bench, folder: Path) -> None:
        target = folder.with_name("existing") if existing else folder
        target.mkdir(exist_ok=True)
        parts = urlsplit(bench.url())
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
            for member in bench.live.members:
                file = os.open(target / member.name, os.O_RDWR | os.O_CREAT)
                os.posix_fallocate(file, 0, member.size)
                _receive(connection, f"{parts.path}?{parts.query}", parts.netloc, member, file)
                os.close(file)

    return run


def _receive(connection: socket.socket, target: str, host: str, member: Member, file: int) -> None:
    last = member.offset + member.size - 1
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={member.offset}-{last}\r\n\r\n"
    )
    connection.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(4096)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206"), head
    os.pwrite(file, body, 0)
    at = len(body)
    while at < member.size:
        read = connection.recv_into(BUFFER, min(CHUNK_BYTES, member.size - at))
        assert read, "the store closed the connection"
        os.pwrite(file, BUFFER[:read], at)
        at += read


VARIANTS: dict[str, Variant] = {
    "dscache 1": ours(1),
    "dscache 2": ours(2),
    "dscache auto": ours(None),
    "dscache, no sync": ours_unsynced,
    "curl + unzip": curl_unzip,
    "boto3 + zipfile": boto3_zipfile,
    "socket, new": raw_socket(existing=False),
    "socket, existing": raw_socket(existing=True),
}


def publish(store: Store, folder: Path, name: str, shards: int, shard_bytes: int) -> Live:
    """Make a stored zip of random shards and upload it in parts, as a builder does."""
    archive = folder / f"{name}.zip"
    digests = []
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for index in range(shards):
            content = random.Random(index).randbytes(shard_bytes)
            digests.append(blake3.blake3(content).hexdigest())
            shard = f"{name}-train.tfrecord-{index:05d}-of-{shards:05d}"
            opened.writestr(zipfile.ZipInfo(shard), content)
        infos = opened.infolist()
    spec = Spec.of(name, "1.0.0", {})
    zip_key = layout.archive(spec.key, 0)
    live = Live(
        spec=spec,
        generation=0,
        zip_key=zip_key,
        zip_etag=_upload(store, zip_key, archive),
        zip_size=archive.stat().st_size,
        seal="",
        members=[_member(info, digest) for info, digest in zip(infos, digests, strict=True)],
    )
    archive.unlink()
    return live


def _member(info: zipfile.ZipInfo, digest: str) -> Member:
    return Member(
        name=info.filename,
        offset=info.header_offset + LOCAL_HEADER_BYTES + len(info.filename),
        size=info.file_size,
        crc32=info.CRC,
        digest=digest,
        records=1,
        split="train",
    )


def _upload(store: Store, name: str, archive: Path) -> str:
    upload = store.create_upload(name, {})
    etags: list[str] = []
    with archive.open("rb") as file:
        while piece := file.read(PART_MIB * MIB):
            part = archive.with_name("part")
            part.write_bytes(piece)
            number = len(etags) + 1
            etags.append(store.upload_part(name, upload, number, [FileRun(part, len(piece))]))
    part.unlink()
    return store.complete_upload(name, upload, list(enumerate(etags, 1)))


def measure(variant: Variant, bench: Bench, folder: Path, *, check: bool) -> Cost:
    """One run into a fresh folder, which is removed afterwards."""
    cost = measured(lambda: variant(bench, folder))
    if check:
        _check(bench, folder if folder.exists() else folder.with_name("existing"))
    shutil.rmtree(folder, ignore_errors=True)
    return cost


def _check(bench: Bench, folder: Path) -> None:
    for member in bench.live.members:
        found = blake3.blake3((folder / member.name).read_bytes()).hexdigest()
        assert found == member.digest, f"{folder / member.name} is wrong"


def compare(bench: Bench, folder: Path, runs: int) -> dict[str, list[Cost]]:
    """Warm up and check, then let the variants take turns."""
    checked: set[str] = set()

    def once(name: str) -> Cost:
        first = name not in checked
        checked.add(name)
        return measure(VARIANTS[name], bench, folder / "to", check=first)

    return take_turns({name: partial(once, name) for name in VARIANTS}, runs)


def summary(costs: dict[str, list[Cost]], mib: int) -> list[dict[str, Any]]:
    """Medians, and throughput relative to the socket into new files."""
    limit = statistics.median(cost.wall_s for cost in costs["socket, new"])
    rows = []
    for name, each in costs.items():
        wall = spread(cost.wall_s for cost in each)
        rows.append(
            {
                "variant": name,
                "mib_per_s": mib / wall.median,
                "mib_per_s_spread": [mib / wall.high, mib / wall.low],
                "of_socket_new": limit / wall.median,
                "cpu_s_per_gib": statistics.median(cost.cpu_s for cost in each) * 1024 / mib,
            }
        )
    return rows


def small_ms(store: Store, folder: Path, runs: int) -> float:
    """Median milliseconds to get a dataset of 24 files of 4 KiB."""
    live = publish(store, folder, "small", 24, 4096)
    walls = []
    for number in range(runs + 1):
        began = time.perf_counter()
        download(live, folder / f"small{number}", lambda: store.presign_get(live.zip_key))
        walls.append((time.perf_counter() - began) * 1000)
    return statistics.median(walls[1:])


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    binary = ensure_binary(os.environ, print)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        with LocalStore(folder / "store", binary) as server:
            store = Store(server.config)
            shard_bytes = options.mib * MIB // options.shards
            live = publish(store, folder, "bench", options.shards, shard_bytes)
            rows = summary(compare(Bench(live, store), folder, options.runs), options.mib)
            milliseconds = small_ms(store, folder, options.runs)
    if options.json:
        print(json.dumps({"download": rows, "small_dataset_ms": milliseconds}, indent=1))
        return
    print(f"{'variant':18} {'MiB/s':>6} {'(spread)':>13} {'x socket':>9} {'CPU s/GiB':>10}")
    for row in rows:
        low, high = row["mib_per_s_spread"]
        print(
            f"{row['variant']:18} {row['mib_per_s']:6.0f} {f'({low:.0f}–{high:.0f})':>13} "
            f"{row['of_socket_new']:9.2f} {row['cpu_s_per_gib']:10.2f}"
        )
    print(f"dataset of 24 files, 96 KiB: {milliseconds:.1f} ms")


if __name__ == "__main__":
    main()
