"""Samples, their splits, their order and their random numbers: everything that depends on an id."""

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
        data: anything else that `load` needs; it must be JSON-serialisable.
        files: further raw files that affect this sample's bytes (such as its mask), as paths below
            the raw root: if one of them changes, so does the plan's digest. Files that affect every
            sample belong in `DatasetHandler.shared_files`.
    """

    id: str
    split: str = "train"
    data: Any = None
    files: tuple[str, ...] = ()


def hash_split(id: str, val: float = 0.1, test: float = 0.0) -> str:
    """Choose "train", "val" or "test" from the id alone.

    A sample keeps its split when others are added or removed, and changing `val` never moves a
    sample into or out of "test".

    Args:
        id: the sample's id.
        val: fraction of "val", 0 to 1.
        test: fraction of "test", 0 to 1; together with `val` at most 1.

    Raises:
        ValueError: the fractions are out of range.
    """
    if val < 0 or test < 0 or val + test > 1:
        raise ValueError(f"val={val} and test={test} must be at least 0 and add up to at most 1")
    place = int.from_bytes(_digest(_SPLIT_PERSON, id, 8), "big") / 2**64
    if place < val:
        return "val"
    return "test" if place >= 1 - test else "train"


def order_key(sample: Sample) -> tuple[bytes, str]:
    """Sort key that shuffles samples by the hash of their id, the same way everywhere."""
    return _digest(_ORDER_PERSON, sample.id, 16), sample.id


def rng_for(seed: int, sample_id: str, variation: int) -> np.random.Generator:
    """The random generator of one variation of one sample.

    Philox, keyed by a hash of (seed, id, variation): independent of the order of work, the number
    of processes and all other options.
    """
    key = _digest(_RNG_PERSON, f"{seed}\0{variation}\0{sample_id}", 16)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def _digest(person: bytes, text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=size, person=person).digest()
