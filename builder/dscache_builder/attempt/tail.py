"""The end of a dataset's zip: what follows its last shard. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import blake3

from dscache.protocol.manifests import Member, ShardRecord
from dscache.spec import Spec
from dscache_sdk import tfds

from . import zip_writer
from .parts import append_member, member_table


def end_of_zip(
    spec: Spec, features: Mapping[str, Any], shards: Sequence[ShardRecord]
) -> tuple[list[Member], bytes]:
    """The member table, and the bytes after the last shard: TFDS files, central directory.

    `features` is the features.json document.
    """
    members = member_table(shards)
    tail = b""
    for name, body in _tfds_files(spec, features, shards):
        crc32, digest = zlib.crc32(body), blake3.blake3(body).hexdigest()
        append_member(members, name, len(body), crc32, digest)
        tail += zip_writer.local_header(name, len(body), crc32) + body
    return members, tail + zip_writer.central_directory(members)


def _tfds_files(
    spec: Spec, features: Mapping[str, Any], shards: Sequence[ShardRecord]
) -> list[tuple[str, bytes]]:
    splits: dict[str, tuple[list[int], int]] = {}
    for shard in shards:
        counts, size = splits.get(shard.split, ([], 0))
        counts.append(shard.records)  # in place: there may be a hundred thousand shards
        splits[shard.split] = (counts, size + shard.size)
    info = tfds.dataset_info_json(spec.dataset_name, spec.handler_version, splits)
    document = json.dumps(features, indent=1, sort_keys=True).encode()
    return [("dataset_info.json", info), ("features.json", document)]
