"""Compare downloads over a slow link: 40 ms round trip, 25 MB/s for each connection.

    python -m benchmarks.slow_link [--mib 128] [--runs 3] [--json]

The link is Toxiproxy in front of a separate store: 20 ms in each direction, and limited bandwidth
of the responses. It is faster than a real one: connecting takes no round trip, and there is no slow
start. Variants:

    socket 1, 2, 4, 8     the limit: the zip in that many ranges, received and discarded
    dscache 1, 2, 4, 8    `dscache.download.download` with that many ranges: verified and synced
    dscache auto          its default, which adds ranges while that helps
    curl, mc, rclone      write the zip over one connection, then `unzip`
    rclone, 8 streams     configured to split files of any size (the default is from 256 MiB on)
    boto3 + zipfile       ten threads with parts of 8 MiB, its default, then extractall

The dataset has 8 equal shards; ours also run with the same bytes in 2. The variants run in a
different order in each round, after a warm-up in which the files are compared with the original.
`of the link` is throughput relative to the sockets with as many connections (8 for variants that
choose or use more). CPU seconds are those of the client and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.download import (
    CHUNK_BYTES,
    MIB,
    Bench,
    Variant,
    boto3_zipfile,
    curl,
    mc,
    measure,
    ours,
    publish,
    rclone,
    unzipped,
)
from benchmarks.harness import QUICK, Cost, measured, spread, table, take_turns
from benchmarks.others import Others
from benchmarks.stack import own_store
from dscache.store.s3 import Store

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.gotools import ensure_program
from support.toxiproxy import Toxiproxy

ONE_WAY_MS = 20
KB_PER_S = 25_000
MOST = 8
FEW_SHARDS = 2
EIGHT_STREAMS = (
    "--multi-thread-cutoff=1M",
    "--multi-thread-chunk-size=4M",
    "--multi-thread-streams=8",
)


class Way(NamedTuple):
    """A variant, and the number of sockets it is compared with; None stands for the sockets."""

    connections: int
    variant: Variant | None = None


OURS = {
    **{f"dscache {count}": Way(count, ours(count)) for count in (1, 2, 4, 8)},
    "dscache auto": Way(MOST, ours(None)),
}
OTHERS = {
    "curl + unzip": Way(1, unzipped(curl)),
    "mc + unzip": Way(1, unzipped(mc)),
    "rclone + unzip": Way(1, unzipped(rclone())),
    "rclone, 8 streams": Way(MOST, unzipped(rclone(*EIGHT_STREAMS))),
    "boto3 + zipfile": Way(MOST, boto3_zipfile),
}


def socket_name(connections: int) -> str:
    """Return the name of the variant that receives over this many sockets."""
    return f"socket {connections}"


def receive(bench: Bench, connections: int) -> None:
    """Receive the zip in concurrent ranges, and discard it."""
    size = bench.live.zip_size
    edges = [size * index // connections for index in range(connections + 1)]
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(partial(_receive, bench.url()), edges[:-1], edges[1:]))


def _receive(url: str, start: int, stop: int) -> None:
    parts = urlsplit(url)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
        connection.sendall(
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Range: bytes={start}-{stop - 1}\r\n\r\n".encode()
        )
        response = b""
        while b"\r\n\r\n" not in response:
            response += connection.recv(4096)
        assert response.startswith(b"HTTP/1.1 206"), response
        left = stop - start - len(response.partition(b"\r\n\r\n")[2])
        while left:
            read = connection.recv_into(buffer, min(CHUNK_BYTES, left))
            assert read, "the store closed the connection"
            left -= read


@contextmanager
def slow_link() -> Iterator[tuple[Path, Store, Store]]:
    """Yield a temporary folder, a store, and the same store behind the link."""
    binary = ensure_program("toxiproxy", os.environ, lambda line: print(line, file=sys.stderr))
    with own_store() as (folder, server), Toxiproxy(binary, folder / "toxiproxy.log") as proxies:
        link = proxies.proxy(server.endpoint)
        for upstream in (False, True):
            link.add("latency", upstream=upstream, latency=ONE_WAY_MS)
        link.add("bandwidth", rate=KB_PER_S)
        yield folder, Store(server.config), Store(server.config._replace(endpoint=link.url))


def run_once(way: Way, bench: Bench, folder: Path, unchecked: set[Way]) -> Cost:
    """Run a variant; check the files of its first run."""
    if way.variant is None:
        return measured(lambda: receive(bench, way.connections))
    check = way in unchecked
    unchecked.discard(way)
    return measure(way.variant, bench, folder, check=check)


def compare(bench: Bench, ways: dict[str, Way], folder: Path, runs: int) -> dict[str, list[Cost]]:
    """Warm up and check, then run the variants alternately."""
    unchecked = set(ways.values())
    turns = {
        name: partial(run_once, way, bench, folder / "to", unchecked) for name, way in ways.items()
    }
    return take_turns(turns, runs)


def summary(
    costs: dict[str, list[Cost]], ways: dict[str, Way], size: int, link_s: dict[int, float]
) -> list[dict[str, Any]]:
    """Return medians; `link_s` maps the number of sockets to their seconds."""
    rows = []
    for name, each in costs.items():
        wall = spread(cost.wall_s for cost in each)
        rows.append(
            {
                "variant": name,
                "wall_s": wall._asdict(),
                "mb_per_s": size / wall.median / 1e6,
                "of_link": link_s[ways[name].connections] / wall.median,
                "cpu_s": statistics.median(cost.cpu_s for cost in each),
                "shown": wall.shown(),
            }
        )
    return rows


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=8 if QUICK else 128)
    parser.add_argument("--runs", type=int, default=1 if QUICK else 3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sockets = {socket_name(count): Way(count) for count in (1, 2, 4, MOST)}
    shapes = {MOST: {**sockets, **OURS, **OTHERS}, FEW_SHARDS: OURS}
    results: dict[int, list[dict[str, Any]]] = {}
    link_s: dict[int, float] = {}
    with slow_link() as (folder, near, far):
        others = Others(far.config, folder / "others")
        for shards, ways in shapes.items():
            live = publish(near, folder, f"shards{shards}", shards, options.mib * MIB // shards)
            costs = compare(Bench(live, far, others), ways, folder, options.runs)
            link_s |= {
                way.connections: statistics.median(cost.wall_s for cost in costs[name])
                for name, way in ways.items()
                if way.variant is None
            }
            results[shards] = summary(costs, ways, live.zip_size, link_s)
    if options.json:
        print(json.dumps({"slow_link": results}, indent=1))
        return
    print(shown(results, options.mib))


def shown(results: dict[int, list[dict[str, Any]]], mib: int) -> str:
    """Return one table with both numbers of shards."""
    rows = (
        [
            f"{mib} MiB in {shards} shards: {row['variant']}",
            row["shown"],
            f"{row['mb_per_s']:.0f}",
            f"{row['of_link']:.2f}",
            f"{row['cpu_s']:.2f}",
        ]
        for shards, each in results.items()
        for row in each
    )
    return table(["variant", "wall s", "MB/s", "of the link", "CPU s"], rows)


if __name__ == "__main__":
    main()
