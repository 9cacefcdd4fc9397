"""Read record files back: as numpy without TensorFlow, or as a tf.data.Dataset."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dscache_sdk.example import decode_features
from dscache_sdk.features.base import Feature
from dscache_sdk.shares import Share, records_of

if TYPE_CHECKING:
    import tensorflow as tf

T = TypeVar("T")
Files = Sequence[str | os.PathLike[str]] | Share


def iter_examples(files: Files, features: Mapping[str, Feature]) -> Iterator[dict[str, Any]]:
    """Yield the examples of the files in order, decoded: images as uint8 [h, w, c], text as
    str, labels as int64, boxes as float32 [n, 4]. Needs no TensorFlow.

    Raises:
        RecordError: a file is damaged.
        FeatureError: a record does not match the features.
    """
    for record in records_of(_share(files)):
        yield decode_features(record, features)


def shuffled(items: Iterable[T], held_back: int, rng: random.Random) -> Iterator[T]:
    """Yield the items in random order, with at most `held_back` in memory at a time."""
    held: list[T] = []
    for item in items:
        held.append(item)
        if len(held) > held_back:
            at = rng.randrange(len(held))
            held[at], held[-1] = held[-1], held[at]
            yield held.pop()
    rng.shuffle(held)
    yield from held


def tfdata(
    files: Files,
    features: Mapping[str, Feature],
    batch_size: int | None = None,
    shuffle: int | None = None,
    decode: bool = True,
    seed: int | None = None,
) -> tf.data.Dataset:
    """The files as a tf.data.Dataset of dicts; imports TensorFlow.

    Small records are parsed many at a time, whatever the batch size, which is ten times as fast as
    one by one. Images are decoded one by one, in parallel. If the order is shuffled, large records
    are read from four files concurrently.

    Args:
        files: in the order of reading, or the share of one of several workers.
        features: the features of their records.
        batch_size: examples per element; None gives single examples. In batches, features with
            one free dimension (boxes) are RaggedTensors, and images must have the same size.
        shuffle: size of the shuffle buffer in records (files are shuffled as well); None keeps the
            order.
        seed: seed of the shuffling; runs with the same seed have the same order in each epoch.
        decode: decode images; False leaves JPEG and PNG files as strings.
    """
    from dscache_sdk.tfparse import dataset

    return dataset(_share(files), features, batch_size, shuffle, decode, seed)


def _share(files: Files) -> Share:
    return files if isinstance(files, Share) else Share([os.fspath(file) for file in files])
