"""Samples, their splits, their order and their random numbers: everything that hangs on an id."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np

_SPLIT_PERSON = b"dscache split"
_ORDER_PERSON = b"dscache order"
_RNG_PERSON = b"dscache rng"


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One raw item.

    Attributes:
        id: unique within the raw data; for a file its path below the raw root.
        split: "train", "val", …: letters, digits and underscores.
        data: anything JSON-able that `load` needs besides the id.
        files: further raw files that decide this sample's bytes (its mask, say), by their paths
            below the raw root: when one of them changes, the plan's digest does. Files that
            every sample hangs on belong into `DatasetHandler.shared_files`.
    """

    id: str
    split: str = "train"
    data: Any = None
    files: tuple[str, ...] = ()


def hash_split(id: str, val: float = 0.1, test: float = 0.0) -> str:
    """Choose "train", "val" or "test" from the id alone.

    A sample keeps its split when others come or go, and changing `val` never moves a sample into
    or out of "test".

    Args:
        id: the sample's id.
        val: fraction of "val", 0 to 1.
        test: fraction of "test", 0 to 1; both together at most 1.

    Raises:
        ValueError: the fractions are out of range.
    """
    if val < 0 or test < 0 or val + test > 1:
        raise ValueError(f"val={val} and test={test} are no fractions of one whole")
    place = int.from_bytes(_digest(_SPLIT_PERSON, id, 8), "big") / 2**64
    if place < val:
        return "val"
    return "test" if place >= 1 - test else "train"


def order_key(sample: Sample) -> tuple[bytes, str]:
    """Sort key that shuffles samples by the hash of their id, the same way everywhere."""
    return _digest(_ORDER_PERSON, sample.id, 16), sample.id


def rng_for(seed: int, sample_id: str, variation: int) -> np.random.Generator:
    """The random numbers of one variation of one sample.

    Philox, keyed by a hash of (seed, id, variation): independent of the order of work, of the
    number of processes and of every other option.
    """
    key = _digest(_RNG_PERSON, f"{seed}\0{variation}\0{sample_id}", 16)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def _digest(person: bytes, text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=size, person=person).digest()
