"""Published datasets for tests: a zip in the bucket and the ready marker that describes it."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from dscache.folder.contents import MANIFEST
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Live, Member
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache_sdk.example import encode_example
from dscache_sdk.features import Feature, Scalar, Text, features_to_json
from dscache_sdk.records import RecordWriter
from dscache_sdk.tfds import dataset_info_json, shard_name

FEATURES: dict[str, Feature] = {"id": Text(), "number": Scalar("int64")}
LOCAL_HEADER_BYTES = 30


def example_files(
    folder: Path, records: Mapping[str, Sequence[int]], name: str = "photos"
) -> dict[str, bytes]:
    """The files of a dataset whose examples are {"id": "train/0/0", "number": 0}, in zip order.

    `records` are the numbers of records per shard: {"train": [3, 3], "val": [2]}.
    """
    files: dict[str, bytes] = {}
    splits: dict[str, tuple[list[int], int]] = {}
    for split, counts in records.items():
        made = [
            _shard(folder, shard_name(name, split, index, len(counts)), f"{split}/{index}", count)
            for index, count in enumerate(counts)
        ]
        files.update(made)
        splits[split] = (list(counts), sum(len(content) for _, content in made))
    files["dataset_info.json"] = dataset_info_json(name, "1.0.0", splits)
    files["features.json"] = features_to_json(FEATURES).encode()
    return files


def random_files(sizes: Sequence[int], *, seed: int = 0, name: str = "photos") -> dict[str, bytes]:
    """Shards of incompressible bytes (no records) with these sizes, all in the split "train"."""
    rng = np.random.default_rng(seed)
    return {
        shard_name(name, "train", index, len(sizes)): rng.bytes(size)
        for index, size in enumerate(sizes)
    }


# The only member of a dataset whose zip nobody reads.
MEMBER = Member(
    name="photos-train.tfrecord-00000-of-00001",
    offset=0,
    size=1,
    crc32=0,
    digest="0" * 64,
    records=1,
    split="train",
)


def publish(
    store: Store,
    files: Mapping[str, bytes],
    *,
    config: Mapping[str, Any] | None = None,
    generation: int = 0,
) -> Live:
    """Put the zip and its ready marker into the bucket, return the marker."""
    spec = Spec.of("photos", "1.0.0", config or {})
    zip_key = layout.archive(spec.key, generation)
    etag = store.put(zip_key, zip_of(files), content_type="application/zip")
    live = described(
        files, spec=spec, generation=generation, zip_key=zip_key, zip_etag=etag, seal="seal"
    )
    store.put(layout.ready(spec.key), manifests.encode(live))
    return live


def described(files: Mapping[str, bytes], **fields: Any) -> Live:
    """The ready marker of these files, as if their zip lay in a bucket."""
    archive = zip_of(files)
    usual: dict[str, Any] = {
        "spec": Spec.of("photos", "1.0.0", {"size": 4}),
        "generation": 0,
        "zip_key": "datasets/k.zip",
        "zip_etag": "e",
        "zip_size": len(archive),
        "seal": "",
        "members": members_of(archive),
    }
    return Live(**usual | fields)


def unpacked(folder: Path, files: Mapping[str, bytes], live: Live) -> Path:
    """A dataset folder as a download leaves it."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_bytes(manifests.encode(live))
    return folder


def url_of(store: Store, live: Live) -> Callable[[], str]:
    """What a download asks for a URL of the zip."""
    return lambda: store.presign_get(live.zip_key)


def live_of(store: Store, key: str) -> Live:
    """The ready marker in the bucket."""
    found = store.get(layout.ready(key))
    assert found is not None
    live = manifests.decode_ready(found.body, where=key)
    assert isinstance(live, Live)
    return live


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """A stored zip, by Python's zipfile."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def members_of(archive: bytes) -> list[Member]:
    """The member table of a stored zip; files named like shards belong to a split."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [_member(archive, info) for info in opened.infolist()]


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of every member file in a dataset folder."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in ("manifest.json", "partial.json")
    }


def _member(archive: bytes, info: zipfile.ZipInfo) -> Member:
    at = info.header_offset
    lengths = archive[at + 26 : at + LOCAL_HEADER_BYTES]
    extra = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    offset = at + LOCAL_HEADER_BYTES + extra
    data = archive[offset : offset + info.file_size]
    is_shard = ".tfrecord" in info.filename
    return Member(
        name=info.filename,
        offset=offset,
        size=len(data),
        crc32=zlib.crc32(data),
        digest=blake3.blake3(data).hexdigest(),
        split=info.filename.split("-")[1].partition(".")[0] if is_shard else "",
        records=data.count(b"number") if is_shard else 0,
    )


def _shard(folder: Path, name: str, prefix: str, count: int) -> tuple[str, bytes]:
    path = folder / name
    with RecordWriter(path) as writer:
        for index in range(count):
            writer.write(encode_example({"id": f"{prefix}/{index}", "number": index}))
    content = path.read_bytes()
    path.unlink()
    return name, content
