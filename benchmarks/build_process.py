"""A process for `benchmarks.build` that runs the handler code of a build without a builder.

    python -m benchmarks.build_process bare|shards|tensorflow OPTIONS RAW PART/PARTS [STORE]

It imports and plans, prints a line, waits for a line, works, and prints its CPU seconds
(`tensorflow`: wall and CPU seconds).
"""

from __future__ import annotations

import json
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dscache_sdk.plain import load_handler


def bare(handler: Any, plan: Any, indices: range) -> None:
    """Run load, example and the image compression; discard the results."""
    for index in indices:
        for _ in images(handler, plan, index):
            pass


def shards(handler: Any, plan: Any, indices: range) -> None:
    """Write shards with checksums, as a worker does."""
    from dscache_builder.hosting.host.checksums import Checksums

    for index in indices:
        sums, path = Checksums(), Path(plan.shards[index].name)
        handler.write_shard(plan, index, path, observers=[sums.update], on_sample=lambda _: None)
        path.unlink()


def tensorflow(handler: Any, plan: Any, indices: range, store: str) -> None:
    """Run TFRecordWriter with tf.train.Example, then zipfile, then boto3's upload_file."""
    import boto3
    import tensorflow as tf

    for index in indices:
        with tf.io.TFRecordWriter(plan.shards[index].name) as writer:
            for image in images(handler, plan, index):
                record = tf.train.Example()
                record.features.feature["image"].bytes_list.value.append(image)
                writer.write(record.SerializeToString())
    with zipfile.ZipFile("all.zip", "w", zipfile.ZIP_STORED) as archive:
        for shard in plan.shards:
            archive.write(shard.name)
    endpoint, region, access_key, secret_key, bucket = json.loads(store)
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name=region,
        aws_access_key_id=access_key, aws_secret_access_key=secret_key,
    )  # fmt: skip
    client.upload_file("all.zip", bucket, "baseline.zip")


def images(handler: Any, plan: Any, index: int) -> Iterator[bytes]:
    """Yield the compressed images of a shard, made by the handler's methods.

    Keeps no pixels while the next image is made: fresh memory would cost the baseline 5 %.
    """
    from dscache_sdk.samples import rng_for

    encode, seed = handler.features["image"].encode, handler.seed
    for number in plan.shards[index].samples:
        sample = plan.samples[number]
        loaded = handler.load(sample)
        for variation in range(handler.options.variations_per_sample):
            rng = rng_for(seed, sample.id, variation)
            yield encode(handler.example(loaded, sample, rng)["image"])


def main() -> None:
    """See the module's docstring."""
    mode, options, raw, share, *store = sys.argv[1:]
    part, parts = map(int, share.split("/"))
    handler = load_handler("photos")(json.loads(options), raw)
    plan = handler.plan("photos")
    if mode == "tensorflow":
        import boto3  # noqa: F401 - import time is not measured
        import tensorflow as tf  # noqa: F401
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter(), time.process_time()
    indices = range(part, len(plan.shards), parts)
    if mode == "tensorflow":
        tensorflow(handler, plan, indices, *store)
        print(time.perf_counter() - wall, time.process_time() - cpu)
        return
    {"bare": bare, "shards": shards}[mode](handler, plan, indices)
    print(time.process_time() - cpu)


if __name__ == "__main__":
    main()
