"""The files of a TFDS dataset: names of the shards and dataset_info.json.

With them and features.json, ``tfds.builder_from_directory()`` opens the folder as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

FILE_NAME_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
INFO_FILE_NAME = "dataset_info.json"
FEATURES_FILE_NAME = "features.json"

_TFDS_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_SHARD_NAME = re.compile(
    r"(?P<dataset>\w+)-(?P<split>\w+)\.tfrecord-(?P<index>[0-9]{5,9})-of-(?P<count>[0-9]{5,9})"
)


def tfds_name(dataset: str) -> str:
    """The dataset's name for TFDS: ``-`` becomes ``_``, a leading digit gets a ``d``."""
    name = re.sub(r"\W", "_", dataset, flags=re.ASCII)
    return name if name[:1].isalpha() else f"d{name}"


def tfds_version(version: str) -> str:
    """The version for TFDS: x.y.z is unchanged, anything else becomes 0.0.0."""
    return version if _TFDS_VERSION.fullmatch(version) else "0.0.0"


def shard_name(dataset: str, split: str, index: int, count: int) -> str:
    """The name of a shard: ``photos-train.tfrecord-00000-of-00012``."""
    return f"{tfds_name(dataset)}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def parse_shard_name(name: str) -> tuple[str, str, int, int] | None:
    """(dataset, split, index, count) of a name from `shard_name`; None for any other name."""
    match = _SHARD_NAME.fullmatch(name)
    if match is None:
        return None
    return match["dataset"], match["split"], int(match["index"]), int(match["count"])


def dataset_info_json(
    name: str,
    version: str,
    splits: Mapping[str, tuple[Sequence[int], int]],
    module_name: str = "dscache",
) -> bytes:
    """The content of dataset_info.json.

    Args:
        name: the dataset's name; see `tfds_name`.
        version: the handler's version; see `tfds_version`.
        splits: split -> (records of each of its files in order, bytes of all of them).
        module_name: shown by TFDS as the module of the dataset's code.
    """
    described = [
        {
            "name": split,
            "shardLengths": [str(length) for length in lengths],
            "numBytes": str(num_bytes),
            "filepathTemplate": FILE_NAME_TEMPLATE,
        }
        for split, (lengths, num_bytes) in splits.items()
    ]
    info = {
        "name": tfds_name(name),
        "version": tfds_version(version),
        "fileFormat": "tfrecord",
        "moduleName": module_name,
        "splits": described,
    }
    return (json.dumps(info, indent=2) + "\n").encode("utf-8")
