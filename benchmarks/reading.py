"""Compare ways of reading a dataset: `Dataset.tfdata` and hand-written tf.data pipelines.

    python -m benchmarks.reading [--runs 3] [--sizes jpeg,small,raw] [--json]

Three record sizes, 8 shards each, in the page cache: photographs (JPEG, about 150 KB); an id, a
label and 32 numbers (about 200 B); and raw pixels (1.9 MB). Batches of 32 examples, counted inside
TensorFlow, so that only `examples()` includes a Python loop.

records        TFRecordDataset alone: bytes, nothing parsed
parse_single   as in tutorials: TFRecordDataset, map(parse_single_example) with AUTOTUNE, batch
interleave     the same, reading four files concurrently
tfds           tfds.builder_from_directory(path).as_dataset(split, batch_size=32), without its
               in-memory cache for datasets below 250 MB (`.cache()` can follow any of these)
tfdata         `ds.tfdata(split, batch_size=32)`
examples()     `ds.examples(split)`: numpy, without TensorFlow

`+ decode`: images are decoded. `+ shuffle`: files are shuffled, with a shuffle buffer of 1,000
records (100 of 1.9 MB). The ways run in a different order in each round, after one warm-up in which
the number of examples is checked. Pipelines are built before the measured time. `of the best` is
the speed of `tfdata` relative to the fastest other way with the same result.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import QUICK, Cost, measured, spread, table, take_turns
from benchmarks.images import make_images
from dscache.folder import contents
from dscache.protocol import manifests
from dscache.protocol.manifests import Live, Member
from dscache.reading.dataset import Dataset
from dscache.spec import Spec
from dscache_sdk import Feature, Image, Scalar, Tensor, Text
from dscache_sdk.example import compile_pieces
from dscache_sdk.features import features_to_json
from dscache_sdk.records import RecordWriter
from dscache_sdk.tfds import dataset_info_json, shard_name

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

tf.get_logger().setLevel("ERROR")

SHARDS = 8
BATCH = 32
CYCLE_LENGTH = 4  # files that `interleave` reads concurrently
SIDE = 800
PHOTOGRAPHS = 16
Example = dict[str, Any]
Way = Callable[[], "tf.data.Dataset | Iterator[Example]"]


class Size(NamedTuple):
    """A record size: its features, its examples, and the size of the shuffle buffer."""

    title: str
    features: dict[str, Feature]
    examples: Iterator[Example]
    shuffle_buffer: int


def sizes(folder: Path) -> dict[str, Size]:
    """Return the record sizes by name; with QUICK, an eighth of the examples."""
    part = 8 if QUICK else 1
    vectors = np.random.default_rng(0).random((1000, 32), dtype=np.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    files = sorted(make_images(folder / "photographs", PHOTOGRAPHS).iterdir())
    jpegs = [file.read_bytes() for file in files]
    return {
        "jpeg": Size(
            "JPEG of 1024 x 1024",
            {"id": Text(), "image": Image("jpeg", (1024, 1024, 3))},
            ({"id": f"{n:08d}", "image": jpegs[n % PHOTOGRAPHS]} for n in range(640 // part)),
            shuffle_buffer=1000,
        ),
        "small": Size(
            "an id, a label, 32 numbers",
            {"id": Text(), "label": Scalar("int64"), "vector": Tensor((32,), "float32")},
            (
                {"id": f"{n:08d}", "label": n % 1000, "vector": vectors[n % 1000]}
                for n in range(64_000 // part)
            ),
            shuffle_buffer=1000,
        ),
        "raw": Size(
            f"pixels, {SIDE} x {SIDE} x 3",
            {"id": Text(), "image": Image("raw", (SIDE, SIDE, 3))},
            ({"id": f"{n:08d}", "image": pixels} for n in range(256 // part)),
            shuffle_buffer=100,
        ),
    }


def write(size: Size, folder: Path) -> Dataset:
    """Write a dataset folder as `dscache get` does."""
    folder.mkdir()
    names = [shard_name("bench", "train", index, SHARDS) for index in range(SHARDS)]
    writers = [RecordWriter(folder / name) for name in names]
    encode = compile_pieces(size.features)
    for number, example in enumerate(size.examples):
        writers[number % SHARDS].write(*encode(example))
    for writer in writers:
        writer.close()
    counts, total = [w.records for w in writers], sum(w.bytes for w in writers)
    info = dataset_info_json("bench", "1.0.0", {"train": (counts, total)})
    (folder / "dataset_info.json").write_bytes(info)
    (folder / "features.json").write_text(features_to_json(size.features))
    members = [
        Member(
            name=name, offset=0, size=w.bytes, crc32=0, digest="", records=w.records, split="train"
        )
        for name, w in zip(names, writers, strict=True)
    ]
    live = Live(
        spec=Spec.of("bench", "1.0.0", {}),
        generation=0,
        zip_key="",
        zip_etag="",
        zip_size=total,
        seal="",
        members=members,
    )
    (folder / contents.MANIFEST).write_bytes(manifests.encode(live))
    return Dataset(folder)


# -- the other ways


def parse(record: tf.Tensor, name: str, *, decode: bool) -> Example:
    """Parse a record as tutorials do."""
    text = tf.io.FixedLenFeature((), tf.string)
    if name == "small":
        numbers = {
            "label": tf.io.FixedLenFeature((), tf.int64),
            "vector": tf.io.FixedLenFeature((32,), tf.float32),
        }
        return dict(tf.io.parse_single_example(record, {"id": text, **numbers}))
    example = tf.io.parse_single_example(record, {"id": text, "image": text})
    if decode and name == "jpeg":
        example["image"] = tf.io.decode_jpeg(example["image"], channels=3)
    elif decode:
        example["image"] = tf.reshape(tf.io.decode_raw(example["image"], tf.uint8), (SIDE, SIDE, 3))
    return dict(example)


def usual(
    dataset: Dataset, name: str, *, cycle_length: int = 1, decode: bool = True, shuffle: int = 0
) -> tf.data.Dataset:
    """Make the pipeline of a tutorial, with its variations."""
    files = tf.data.Dataset.from_tensor_slices(dataset.files("train"))
    if shuffle:
        files = files.shuffle(SHARDS)
    if cycle_length > 1:
        records = files.interleave(
            tf.data.TFRecordDataset, cycle_length=cycle_length, num_parallel_calls=tf.data.AUTOTUNE
        )
    else:
        records = tf.data.TFRecordDataset(files)
    if shuffle:
        records = records.shuffle(shuffle)
    parsed = records.map(
        partial(parse, name=name, decode=decode), num_parallel_calls=tf.data.AUTOTUNE
    )
    return parsed.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def by_tfds(dataset: Dataset) -> tf.data.Dataset:
    """Read the folder with tensorflow_datasets, without dscache."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(dataset.path)
    config = tfds.ReadConfig(try_autocache=False)
    return builder.as_dataset(split="train", batch_size=BATCH, read_config=config)


def ways(dataset: Dataset, name: str, shuffle_buffer: int) -> dict[str, Way]:
    """Return all ways of reading this dataset, by their name in the table."""
    tfdata = partial(dataset.tfdata, "train", batch_size=BATCH)
    result: dict[str, Way] = {
        "records": lambda: tf.data.TFRecordDataset(dataset.files("train")).batch(BATCH),
    }
    if name == "jpeg":
        result |= {
            "parse_single": lambda: usual(dataset, name, decode=False),
            "interleave": lambda: usual(dataset, name, cycle_length=CYCLE_LENGTH, decode=False),
            "tfdata": lambda: tfdata(decode=False),
        }
    end = "" if name == "small" else " + decode"
    return result | {
        f"parse_single{end}": lambda: usual(dataset, name),
        f"interleave{end}": lambda: usual(dataset, name, cycle_length=CYCLE_LENGTH),
        f"tfds{end}": lambda: by_tfds(dataset),
        f"tfdata{end}": tfdata,
        f"examples(){end}": lambda: dataset.examples("train"),
        f"interleave{end} + shuffle": lambda: usual(
            dataset, name, cycle_length=CYCLE_LENGTH, shuffle=shuffle_buffer
        ),
        f"tfdata{end} + shuffle": lambda: tfdata(shuffle=shuffle_buffer),
    }


# -- measuring


def reader(way: Way, records: int) -> Callable[[], Cost]:
    """Return a measured read to the end, which checks the number of examples."""
    pipeline = way()
    if isinstance(pipeline, tf.data.Dataset):

        def size(total: tf.Tensor, element: Any) -> tf.Tensor:
            return total + tf.shape(tf.nest.flatten(element)[0], out_type=tf.int64)[0]

        counted = tf.function(lambda: pipeline.reduce(tf.constant(0, tf.int64), size))

        def read() -> None:
            assert int(counted()) == records
    else:

        def read() -> None:
            assert sum(1 for _ in way()) == records

    return lambda: measured(read)


def compare(name: str, size: Size, folder: Path, runs: int) -> dict[str, Any]:
    """Measure all ways of reading one record size."""
    dataset = write(size, folder / name)
    records, total = dataset.info["splits"]["train"], dataset.info["bytes"]
    readers = {
        way: reader(make, records) for way, make in ways(dataset, name, size.shuffle_buffer).items()
    }
    rows = []
    for way, costs in take_turns(readers, runs).items():
        wall, cpu = spread(c.wall_s for c in costs), spread(c.cpu_s for c in costs)
        rows.append(
            {
                "way": way,
                "records_per_s": [records / s for s in (wall.median, wall.high, wall.low)],
                "mb_per_s": total / 1e6 / wall.median,
                "cpu_s_per_1000": cpu.median / records * 1000,
            }
        )
    dataset.close()
    return {"title": size.title, "records": records, "bytes": total // records, "rows": rows}


def of_the_best(rows: list[dict[str, Any]], way: str) -> float | None:
    """Return the speed of `tfdata` relative to the fastest other way with the same result."""
    kind, _, suffix = way.partition(" ")
    speeds = {row["way"]: row["records_per_s"][0] for row in rows}
    others = [
        speeds[other]
        for other_kind in ("parse_single", "interleave", "tfds")
        if (other := f"{other_kind} {suffix}".strip()) in speeds
    ]
    return speeds[way] / max(others) if kind == "tfdata" else None


def report(results: dict[str, Any]) -> str:
    """Return the table of one record size as Markdown."""
    title = f"{results['title']}: {results['records']:,} records of {results['bytes']:,} B"
    head = (title, "records/s", "MB/s", "CPU s per 1,000", "of the best")
    rows = []
    for row in results["rows"]:
        median, low, high = row["records_per_s"]
        compared = of_the_best(results["rows"], row["way"])
        rows.append(
            (
                row["way"],
                f"{median:,.0f} ({low:,.0f}–{high:,.0f})",
                f"{row['mb_per_s']:,.0f}",
                f"{row['cpu_s_per_1000']:.3f}",
                "" if compared is None else f"{compared:.2f}",
            )
        )
    return table(head, rows)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1 if QUICK else 3)
    parser.add_argument("--sizes", default="jpeg,small,raw")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dscache-bench-") as name:
        folder = Path(name)
        known = sizes(folder)
        found = {
            size: compare(size, known[size], folder, options.runs)
            for size in options.sizes.split(",")
        }
    print(json.dumps(found, indent=1) if options.json else "\n\n".join(map(report, found.values())))


if __name__ == "__main__":
    main()
