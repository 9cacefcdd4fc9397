"""Names and dataset_info.json as TFDS takes them (without TFDS; test_tfds.py opens them)."""

from __future__ import annotations

import json

import pytest

from dscache_sdk.tfds import (
    dataset_info_json,
    parse_shard_name,
    shard_name,
    tfds_name,
    tfds_version,
)


def test_names() -> None:
    assert shard_name("photos", "train", 0, 12) == "photos-train.tfrecord-00000-of-00012"
    assert shard_name("my-photos", "val", 123456, 200000) == (
        "my_photos-val.tfrecord-123456-of-200000"
    )
    assert parse_shard_name(shard_name("my-photos", "val", 3, 7)) == ("my_photos", "val", 3, 7)
    assert parse_shard_name("photos.tfrecord") is None
    assert [tfds_name(name) for name in ("a-b", "2d", "x")] == ["a_b", "d2d", "x"]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0.0", "1.0.0"),
        ("10.2.33", "10.2.33"),
        ("1.0", "0.0.0"),
        ("v1.0.0", "0.0.0"),
        ("1.0.0-rc1", "0.0.0"),
        ("01.0.0", "0.0.0"),
        ("main", "0.0.0"),
    ],
)
def test_versions(version: str, expected: str) -> None:
    assert tfds_version(version) == expected
    info = json.loads(dataset_info_json("a-b", version, {"train": ([3, 2], 99)}))
    assert info["version"] == expected
    assert info["name"] == "a_b"
    assert info["splits"][0]["shardLengths"] == ["3", "2"]
