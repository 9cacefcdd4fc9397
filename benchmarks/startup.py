"""Measure `dscache get` as a new process, when nothing has to be built.

    python -m benchmarks.startup [--runs 25] [--json]

Uses its own store. All programs run as users run them, warm and alternately:

local hit    `dscache get` of a cached dataset; limit: 1.5 times `import click`
remote hit   `dscache get` of a dataset that is ready in the bucket: 24 files of 4 KiB, into an
             empty cache each time; limit: 1.3 times `import botocore.auth, urllib3` (which sign and
             send a request) plus curl's download of the same zip with a presigned URL
compared     Python alone, `import dscache`, boto3 with a client, TensorFlow (fewer runs)

`of limit` is the ratio of medians. Next to it is the same ratio of CPU times, which other load on
the machine affects less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import DSCACHE, QUICK, Cost, measured, output_of, spread, table, take_turns
from benchmarks.stack import client_environ, own_store
from dscache.devstack.localstore import LocalStore
from dscache.store.s3 import Store

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.datasets import publish, random_files

FILES, FILE_BYTES = 24, 4096

PYTHON = "python -c pass"
CLICK = "import click"
IMPORT = "import dscache"
LOCAL = "dscache get, local hit"
SIGNER = "import botocore.auth, urllib3"
CURL = "curl of that zip"
REMOTE = "dscache get, remote hit"
BOTO3 = "import boto3; boto3.client('s3')"
TENSORFLOW = "import tensorflow"
LIMITS = {LOCAL: {CLICK: 1.5}, REMOTE: {SIGNER: 1.3, CURL: 1.0}}  # factors of other medians


def process(
    argv: Sequence[str], environ: dict[str, str], before: Callable[[], object] | None = None
) -> Callable[[], Cost]:
    """Return a measured run of a program; `before` is called first and not measured."""

    def once() -> Cost:
        if before is not None:
            before()
        return measured(lambda: output_of(argv, environ))

    return once


def variants(server: LocalStore, folder: Path) -> dict[str, Callable[[], Cost]]:
    """Return all programs, by their name in the table."""
    store = Store(server.config)
    live = publish(store, random_files([FILE_BYTES] * FILES), config={"files": FILES})
    cfg = folder / "cfg.json"
    members = {"dataset_name": live.spec.dataset_name, "handler_version": live.spec.handler_version}
    cfg.write_text(json.dumps({**members, "dataset_config": live.spec.dataset_config}))
    with_cache = client_environ(server.client_config._replace(home=folder / "filled"))
    empty = folder / "empty"
    without_cache = client_environ(server.client_config._replace(home=empty))
    get = [DSCACHE, "get", str(cfg)]
    output_of(get, with_cache)
    curl = ["curl", "-sS", "-f", "-o", str(folder / "all.zip"), store.presign_get(live.zip_key)]

    def python(code: str) -> Callable[[], Cost]:
        return process([sys.executable, "-c", code], with_cache)

    return {
        PYTHON: python("pass"),
        CLICK: python(CLICK),
        IMPORT: python(IMPORT),
        LOCAL: process(get, with_cache),
        SIGNER: python(SIGNER),
        CURL: process(curl, with_cache),
        REMOTE: process(get, without_cache, partial(shutil.rmtree, empty, ignore_errors=True)),
        BOTO3: python(BOTO3),
    }


def summary(costs: dict[str, list[Cost]]) -> list[dict[str, Any]]:
    """Return medians and extremes in ms; with a limit, also the limit and the ratios."""
    wall = {name: spread(cost.wall_s * 1000 for cost in each) for name, each in costs.items()}
    cpu = {name: spread(cost.cpu_s * 1000 for cost in each) for name, each in costs.items()}
    rows = []
    for name, each in costs.items():
        row: dict[str, Any] = {"program": name, "runs": len(each)}
        row.update(wall_ms=wall[name], cpu_ms=cpu[name])
        if name in LIMITS:
            for kind, spreads in (("wall", wall), ("cpu", cpu)):
                limit = sum(factor * spreads[part].median for part, factor in LIMITS[name].items())
                row[f"{kind}_limit_ms"] = limit
                row[f"{kind}_of_limit"] = spreads[name].median / limit
        rows.append(row)
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    head = ("program", "runs", "wall ms", "CPU ms", "limit, ms", "of limit", "of limit, CPU")
    shown = []
    for row in rows:
        cells = [row["program"], str(row["runs"])]
        cells += [row["wall_ms"].shown(1), row["cpu_ms"].shown(1)]
        if "wall_limit_ms" in row:
            cells += [f"{row['wall_limit_ms']:.1f}", f"{row['wall_of_limit']:.2f}"]
            cells += [f"{row['cpu_of_limit']:.2f}"]
        shown.append(cells + [""] * (len(head) - len(cells)))
    return table(head, shown)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5 if QUICK else 25)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with own_store() as (folder, server):
        costs = take_turns(variants(server, folder), options.runs)
    tensorflow = process([sys.executable, "-c", TENSORFLOW], dict(os.environ))
    costs[TENSORFLOW] = [tensorflow() for _ in range(1 if QUICK else 2)]
    rows = summary(costs)
    print(json.dumps(rows, indent=1) if options.json else report(rows))


if __name__ == "__main__":
    main()
