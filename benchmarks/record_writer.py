"""Compare our record writer and encoder with TensorFlow's, on two sizes of records.

    python -m benchmarks.record_writer [--runs 7] [--folder DIR] [--json]

Base: tf.io.TFRecordWriter with tf.train.Example, filled by appending (constructors, as in
TensorFlow's guide, are slower still). Ours: RecordWriter with compile_pieces. The two alternate
after a warm-up, in which TensorFlow reads both files and compares the records; medians of wall and
CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import QUICK, measured, spread, table, take_turns
from dscache_sdk import Feature, Image, Scalar, Tensor, Text
from dscache_sdk.example import compile_pieces
from dscache_sdk.records import RecordWriter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Example = dict[str, Any]
Write = Callable[[Path, list[Example]], None]

LARGE_FEATURES: dict[str, Feature] = {"id": Text(), "image": Image("jpeg")}
SMALL_FEATURES: dict[str, Feature] = {
    "id": Text(),
    "label": Scalar("int64"),
    "vector": Tensor((32,), "float32"),
}


def large_examples(count: int = 1000) -> list[Example]:
    """Return examples of 200 KB, the size of an image, without the cost of compressing one."""
    noise = np.random.default_rng(0).bytes(200_000)
    return [
        {"id": f"{n:08d}.jpg", "image": b"\xff\xd8\xff" + n.to_bytes(4, "big") + noise}
        for n in range(count)
    ]


def small_examples(count: int = 100_000) -> list[Example]:
    """Return examples of about 200 bytes: an id, a label and a vector of 32 numbers."""
    vectors = np.random.default_rng(0).random((count, 32), dtype=np.float32)
    return [{"id": f"{n:08d}", "label": n % 1000, "vector": vectors[n]} for n in range(count)]


def write_ours(features: dict[str, Feature]) -> Write:
    """Return our writer for these features; compiling the encoder is measured too."""

    def write(path: Path, examples: list[Example]) -> None:
        encode = compile_pieces(features)
        with RecordWriter(path) as writer:
            for example in examples:
                writer.write(*encode(example))

    return write


def write_tensorflow(path: Path, examples: list[Example]) -> None:
    """Write with TensorFlow's writer and Example."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            record = tf.train.Example()
            feature = record.features.feature
            for name, value in example.items():
                _put(feature[name], value)
            writer.write(record.SerializeToString())


def _put(feature: Any, value: Any) -> None:
    if isinstance(value, str):
        feature.bytes_list.value.append(value.encode())
    elif isinstance(value, bytes):
        feature.bytes_list.value.append(value)
    elif isinstance(value, int):
        feature.int64_list.value.append(value)
    else:
        feature.float_list.value.extend(value)


def check(base: Path, ours: Path) -> None:
    """Raise AssertionError unless TensorFlow reads the same examples from both files."""
    import tensorflow as tf

    pairs = zip(tf.data.TFRecordDataset(str(base)), tf.data.TFRecordDataset(str(ours)), strict=True)
    for number, (one, other) in enumerate(pairs):
        same = tf.train.Example.FromString(one.numpy()) == tf.train.Example.FromString(
            other.numpy()
        )
        if not same:
            raise AssertionError(f"record {number} differs")


def compare(
    name: str, features: dict[str, Feature], examples: list[Example], folder: Path, runs: int
) -> dict[str, Any]:
    """Measure one record size; return the figures."""
    ways: dict[str, Write] = {"base": write_tensorflow, "ours": write_ours(features)}
    paths = {way: folder / f"{name}-{way}.tfrecord" for way in ways}
    for way, write in ways.items():
        write(paths[way], examples)
    check(paths["base"], paths["ours"])
    taken = take_turns(
        {
            way: partial(measured, partial(write, paths[way], examples))
            for way, write in ways.items()
        },
        runs,
    )
    figures: dict[str, Any] = {"name": name, "records": len(examples), "runs": runs}
    figures["record_bytes"] = round(paths["ours"].stat().st_size / len(examples))
    for way, costs in taken.items():
        figures[f"{way}_wall_s"] = spread(cost.wall_s for cost in costs).median
        figures[f"{way}_cpu_s"] = spread(cost.cpu_s for cost in costs).median
    figures["faster_wall"] = figures["base_wall_s"] / figures["ours_wall_s"]
    figures["faster_cpu"] = figures["base_cpu_s"] / figures["ours_cpu_s"]
    for path in paths.values():
        path.unlink()
    return figures


def main() -> None:
    """Measure both record sizes and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1 if QUICK else 7)
    shm = Path("/dev/shm")
    default = shm if shm.is_dir() else Path(tempfile.gettempdir())
    parser.add_argument("--folder", type=Path, default=default, help="where to write")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        results = [
            compare("large", LARGE_FEATURES, large_examples(), folder, arguments.runs),
            compare("small", SMALL_FEATURES, small_examples(), folder, arguments.runs),
        ]
    if arguments.json:
        print(json.dumps(results))
        return
    head = ("records", "writer", "records/s", "MB/s", "wall s", "CPU s", "times faster: wall, CPU")
    print(table(head, [row for figures in results for row in rows(figures)]))


def rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the table rows of one record size."""
    lines: list[tuple[str, ...]] = []
    for way, title in (("base", "TensorFlow"), ("ours", "ours")):
        wall, cpu = figures[f"{way}_wall_s"], figures[f"{way}_cpu_s"]
        rate = figures["records"] / wall
        faster = f"{figures['faster_wall']:.2f}, {figures['faster_cpu']:.2f}"
        lines.append(
            (
                f"{figures['records']:,} of {figures['record_bytes']:,} B",
                title,
                f"{rate:,.0f}",
                f"{rate * figures['record_bytes'] / 1e6:,.0f}",
                f"{wall:.3f}",
                f"{cpu:.3f}",
                faster if way == "ours" else "1",
            )
        )
    return lines


if __name__ == "__main__":
    main()
