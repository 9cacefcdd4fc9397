"""The plan of a dataset: which samples go into which file. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from dscache_sdk.errors import HandlerContractError
from dscache_sdk.samples import Sample, order_key
from dscache_sdk.tfds import shard_name

SHARD_TARGET_BYTES = 128 << 20  # the middle of 64–256 MiB, which stream and resume well
SHARD_MAX_BYTES = 256 << 20

_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED_SPLITS = ("all",)  # TFDS: the union of all splits


class ShardPlan(msgspec.Struct, frozen=True):
    """One file of a split.

    Attributes:
        index: index in `Plan.shards`.
        name: the file's name.
        split: the split it belongs to.
        samples: indices into `Plan.samples`; the file's records are their variations in order.
        examples: planned records (fewer are written if examples are dropped).
    """

    index: int
    name: str
    split: str
    samples: list[int]
    examples: int


class Plan(msgspec.Struct, frozen=True):
    """All files of a dataset; msgspec can write it as JSON.

    Attributes:
        shards: the files in order.
        samples: all samples, grouped by file.
        examples: planned records of all files.
        digest: hex SHA-256 of the samples, their raw files (size and mtime), the resolved config
            and the division into files: two builds with the same digest write the same bytes.
    """

    shards: list[ShardPlan]
    samples: list[Sample]
    examples: int
    digest: str


class ShardStats(msgspec.Struct, frozen=True):
    """The size of a written file: records, and bytes including framing."""

    records: int
    bytes: int


def by_split(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Group samples by split ("train" first, then by name), each shuffled by the hash of the id.

    Raises:
        HandlerContractError: an id is empty or occurs twice, or a split's name is invalid.
    """
    groups: dict[str, list[Sample]] = {}
    seen: set[str] = set()
    for sample in samples:
        _check(sample, seen)
        seen.add(sample.id)
        groups.setdefault(sample.split, []).append(sample)
    order = sorted(groups, key=lambda split: (split != "train", split))
    return {split: sorted(groups[split], key=order_key) for split in order}


def _check(sample: Any, seen: set[str]) -> None:
    if not isinstance(sample, Sample):
        raise HandlerContractError(f"samples() yielded a {type(sample).__name__}, not a Sample")
    if not isinstance(sample.id, str) or not sample.id:
        raise HandlerContractError(
            f"samples() yielded the id {sample.id!r}; ids must be non-empty text"
        )
    if sample.id in seen:
        raise HandlerContractError(f"samples() yielded the id '{sample.id}' twice")
    if isinstance(sample.files, str) or not all(isinstance(path, str) for path in sample.files):
        raise HandlerContractError(
            f"sample '{sample.id}': files is {sample.files!r}; expected a tuple of paths"
        )
    if not _SPLIT_NAME.fullmatch(sample.split) or sample.split in _RESERVED_SPLITS:
        raise HandlerContractError(
            f"sample '{sample.id}': invalid split name '{sample.split}'; use letters, digits and "
            "underscores, starting with a letter, and not 'all'"
        )


def samples_per_shard(count: int, variations: int, batch_size: int) -> list[int]:
    """Numbers of samples per file, such that no file has more than `batch_size` examples.

    Variations of a sample stay together: with more variations than `batch_size`, each file has one
    sample.
    """
    each = max(1, batch_size // variations)
    full, remainder = divmod(count, each)
    return [each] * full + ([remainder] if remainder else [])


def samples_by_bytes(count: int, sample_bytes: float) -> list[int]:
    """Numbers of samples per file, such that files are equal and near SHARD_TARGET_BYTES."""
    files = max(1, math.ceil(count * sample_bytes / SHARD_MAX_BYTES))
    if count * sample_bytes > SHARD_MAX_BYTES:
        files = max(files, round(count * sample_bytes / SHARD_TARGET_BYTES))
    files = min(files, count)
    each, larger = divmod(count, files)
    return [each + 1] * larger + [each] * (files - larger)


def make_plan(
    dataset: str,
    groups: dict[str, list[Sample]],
    variations: int,
    divide: Callable[[int], Sequence[int]],
    facts: Callable[[str], Any],
    shared: Iterable[str],
    config: dict[str, Any],
) -> Plan:
    """Assign the samples to files.

    Args:
        dataset: the dataset's name, for the file names.
        groups: from `by_split`.
        variations: examples per sample.
        divide: number of samples of a split -> numbers of samples per file.
        facts: path of a raw file -> (size, mtime), which show that it has changed.
        shared: raw files that affect every sample.
        config: the resolved config.
    """
    shards: list[ShardPlan] = []
    samples: list[Sample] = []
    for split, members in groups.items():
        sizes = divide(len(members))
        start = len(samples)
        samples += members
        for number, size in enumerate(sizes):
            name = shard_name(dataset, split, number, len(sizes))
            indices = list(range(start, start + size))
            shards.append(ShardPlan(len(shards), name, split, indices, size * variations))
            start += size
    digest = _digest(samples, shards, facts, sorted(shared), config)
    return Plan(shards, samples, len(samples) * variations, digest)


def _digest(
    samples: list[Sample],
    shards: list[ShardPlan],
    facts: Callable[[str], Any],
    shared: list[str],
    config: dict[str, Any],
) -> str:
    digest = hashlib.sha256()
    encoder = msgspec.json.Encoder(order="deterministic")
    files = [[path, facts(path)] for path in shared]
    digest.update(encoder.encode([2, config, [[s.name, len(s.samples)] for s in shards], files]))
    for sample in samples:
        own = [facts(sample.id), *([path, facts(path)] for path in sample.files)]
        digest.update(encoder.encode([sample.id, sample.split, sample.data, own]))
    return digest.hexdigest()
