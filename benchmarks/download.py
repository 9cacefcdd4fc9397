"""Compare our download (ranges, CRC-32 and BLAKE3, unpacked, synced) with common tools.

    python -m benchmarks.download [--mib 512] [--shards 8] [--runs 5] [--json]

Uses its own store, with one zip that was uploaded in parts of 64 MiB. Variants:

    dscache 1, 2, auto   `dscache.download.download` with that many ranges: verified and synced
    dscache, no sync     the same (auto) without fdatasync, which the other tools do not call either
    curl, mc, rclone     write the zip; `unzip` then checks CRC-32 while unpacking
    boto3 + zipfile      download_file, then extractall, which checks CRC-32
    socket, new          the limit: recv_into and pwrite of each shard's range into new files with
                         preallocated space, one connection, nothing verified
    socket, existing     the same into existing files

They run in a different order in each round, after one warm-up in which the files are compared with
the original. Medians and spread of wall seconds, and CPU seconds of the client (with its children)
and of the server. The second table shows how much the peak memory of a process grows while it
downloads a dataset.
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
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import urlsplit

import blake3

from benchmarks.harness import QUICK, Cost, cpu_of, measured, spread, table, take_turns
from benchmarks.others import Others
from benchmarks.stack import own_store
from dscache.devstack.localstore import LocalStore
from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.protocol import layout
from dscache.protocol.manifests import Live, Member
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache.store.upload import FilePiece

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.downloading import Downloading

MIB = 1 << 20
PART_MIB = 64
LOCAL_HEADER_BYTES = 30
CHUNK_BYTES = 256 << 10
BUFFER = memoryview(bytearray(CHUNK_BYTES))


class Bench(NamedTuple):
    """The published dataset, its store, and the other tools."""

    live: Live
    store: Store
    others: Others

    def url(self) -> str:
        """Return a fresh presigned URL of the zip."""
        return self.store.presign_get(self.live.zip_key)


Variant = Callable[[Bench, Path], None]


def ours(parallel: int | None) -> Variant:
    """Return our download with `parallel` ranges."""

    def run(bench: Bench, folder: Path) -> None:
        download(bench.live, folder, bench.url, options=TransferOptions(parallel=parallel))

    return run


def ours_unsynced(bench: Bench, folder: Path) -> None:
    """Run our download without waiting for the disk, for comparison only."""
    with mock.patch("os.fdatasync"):
        download(bench.live, folder, bench.url)


def unzipped(fetch: Callable[[Bench, Path], None]) -> Variant:
    """Return what a shell script does: fetch the zip, unpack it, remove it."""

    def run(bench: Bench, folder: Path) -> None:
        folder.mkdir()
        archive = folder / "all.zip"
        fetch(bench, archive)
        subprocess.run(["unzip", "-q", str(archive), "-d", str(folder)], check=True)
        archive.unlink()

    return run


def curl(bench: Bench, archive: Path) -> None:
    """Download a presigned URL with curl."""
    subprocess.run(["curl", "-sS", "-f", "-o", str(archive), bench.url()], check=True)


def mc(bench: Bench, archive: Path) -> None:
    """Download with MinIO's client."""
    bench.others.mc("cp", bench.others.at_mc(bench.live.zip_key), str(archive))


def rclone(*options: str) -> Callable[[Bench, Path], None]:
    """Return a download with rclone and these options."""

    def run(bench: Bench, archive: Path) -> None:
        source = bench.others.at_rclone(bench.live.zip_key)
        bench.others.rclone("copyto", *options, source, str(archive))

    return run


def boto3_zipfile(bench: Bench, folder: Path) -> None:
    """Download as a Python script would, with boto3's defaults."""
    folder.mkdir()
    archive = folder / "all.zip"
    bench.others.boto3().download_file(bench.store.bucket, bench.live.zip_key, str(archive))
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    archive.unlink()


def raw_socket(existing: bool) -> Variant:
    """Return the minimal download in Python: one connection, one range for each shard."""

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
    response = b""
    while b"\r\n\r\n" not in response:
        response += connection.recv(4096)
    head, _, body = response.partition(b"\r\n\r\n")
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
    "curl + unzip": unzipped(curl),
    "mc + unzip": unzipped(mc),
    "rclone + unzip": unzipped(rclone()),
    "boto3 + zipfile": boto3_zipfile,
    "socket, new": raw_socket(existing=False),
    "socket, existing": raw_socket(existing=True),
}


def publish(store: Store, folder: Path, name: str, shards: int, shard_bytes: int) -> Live:
    """Upload a zip of random shards in parts, as a builder does."""
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
            etags.append(store.upload_part(name, upload, number, [FilePiece(part, len(piece))]))
    part.unlink()
    return store.complete_upload(name, upload, list(enumerate(etags, 1)))


def measure(variant: Variant, bench: Bench, folder: Path, *, check: bool) -> Cost:
    """Run a variant into a new folder, which is removed afterwards."""
    cost = measured(lambda: variant(bench, folder))
    if check:
        _check(bench, folder if folder.exists() else folder.with_name("existing"))
    shutil.rmtree(folder, ignore_errors=True)
    return cost


def _check(bench: Bench, folder: Path) -> None:
    for member in bench.live.members:
        digest = blake3.blake3((folder / member.name).read_bytes()).hexdigest()
        assert digest == member.digest, f"{folder / member.name} is wrong"


class Run(NamedTuple):
    """The cost of one run for the client, and CPU seconds of the server."""

    client: Cost
    server_cpu_s: float


def compare(bench: Bench, server: LocalStore, folder: Path, runs: int) -> dict[str, list[Run]]:
    """Warm up and check, then run the variants alternately."""
    checked: set[str] = set()

    def once(name: str) -> Run:
        first = name not in checked
        checked.add(name)
        before = server_cpu_s(server)
        cost = measure(VARIANTS[name], bench, folder / "to", check=first)
        return Run(cost, server_cpu_s(server) - before)

    return take_turns({name: partial(once, name) for name in VARIANTS}, runs)


def server_cpu_s(server: LocalStore) -> float:
    """Return the CPU seconds that the server has used."""
    used = cpu_of(server.pid) if server.pid else None
    assert used is not None, "the server has ended"
    return used


def summary(results: dict[str, list[Run]], mib: int) -> list[dict[str, Any]]:
    """Return medians, and throughput relative to the socket into new files."""
    limit = statistics.median(run.client.wall_s for run in results["socket, new"])
    rows = []
    for name, runs in results.items():
        wall = spread(run.client.wall_s for run in runs)
        rows.append(
            {
                "variant": name,
                "mib_per_s": mib / wall.median,
                "mib_per_s_spread": [mib / wall.high, mib / wall.low],
                "of_socket_new": limit / wall.median,
                "cpu_s_per_gib": statistics.median(r.client.cpu_s for r in runs) * 1024 / mib,
                "server_cpu_s_per_gib": statistics.median(r.server_cpu_s for r in runs)
                * 1024
                / mib,
            }
        )
    return rows


def shown(rows: list[dict[str, Any]]) -> str:
    """Return the table of the variants."""
    head = ["variant", "MiB/s", "x socket, new", "client CPU s/GiB", "server CPU s/GiB"]
    return table(
        head,
        (
            [
                row["variant"],
                "{:.0f} ({:.0f}–{:.0f})".format(row["mib_per_s"], *row["mib_per_s_spread"]),
                f"{row['of_socket_new']:.2f}",
                f"{row['cpu_s_per_gib']:.2f}",
                f"{row['server_cpu_s_per_gib']:.2f}",
            ]
            for row in rows
        ),
    )


def peak_growth_mib(bench: Bench, folder: Path) -> float:
    """Return by how much the peak memory of a process grows while it downloads."""
    to = folder / "to"
    with Downloading(bench.live, bench.url(), to) as child:
        grown = child.grown()
    shutil.rmtree(to)
    return grown / MIB


def small_ms(store: Store, folder: Path, runs: int) -> float:
    """Return the median milliseconds of downloading 24 files of 4 KiB."""
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
    parser.add_argument("--mib", type=int, default=64 if QUICK else 512)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--runs", type=int, default=1 if QUICK else 5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with own_store() as (folder, server):
        store = Store(server.config)
        others = Others(server.config, folder / "others")

        def published(name: str, mib: int) -> Bench:
            live = publish(store, folder, name, options.shards, mib * MIB // options.shards)
            return Bench(live, store, others)

        bench = published("bench", options.mib)
        rows = summary(compare(bench, server, folder, options.runs), options.mib)
        milliseconds = small_ms(store, folder, options.runs)
        smaller = options.mib // 8
        peaks = {
            smaller: peak_growth_mib(published("smaller", smaller), folder),
            options.mib: peak_growth_mib(bench, folder),
        }
    if options.json:
        results = {"download": rows, "small_dataset_ms": milliseconds, "peak_growth_mib": peaks}
        print(json.dumps(results, indent=1))
        return
    print(shown(rows))
    print(f"\nA dataset of 24 files, 96 KiB: {milliseconds:.1f} ms.\n")
    each = ([f"{mib} MiB", f"{grown:.1f}"] for mib, grown in peaks.items())
    print(table(["dataset", "peak memory grows by, MiB"], each))


if __name__ == "__main__":
    main()
