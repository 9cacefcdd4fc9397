"""Read record files back: as numpy without TensorFlow, or as a tf.data.Dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dscache_sdk.example import decode_features
from dscache_sdk.features.base import Feature
from dscache_sdk.records import read_records

if TYPE_CHECKING:
    import tensorflow as tf


def iter_examples(
    files: Sequence[str | os.PathLike[str]], features: Mapping[str, Feature]
) -> Iterator[dict[str, Any]]:
    """Yield the examples of the files in order, decoded: pictures as uint8 [h, w, c], text as
    str, labels as int64, boxes as float32 [n, 4]. Needs no TensorFlow.

    Raises:
        RecordError: a file is damaged.
        FeatureError: a record does not hold what the features say.
    """
    for file in files:
        for record in read_records(file):
            yield decode_features(record, features)


def tfdata(
    files: Sequence[str | os.PathLike[str]],
    features: Mapping[str, Feature],
    batch_size: int | None = None,
    shuffle: int | None = None,
    decode: bool = True,
) -> tf.data.Dataset:
    """The files as a tf.data.Dataset of dicts; imports TensorFlow.

    Small records are parsed many at a time, which is six times as fast as one by one.

    Args:
        files: in the order to read them.
        features: of their records.
        batch_size: examples per element; None gives single examples. In batches, features with
            one free dimension (boxes) are RaggedTensors, and pictures must be equal in size.
        shuffle: records held back for shuffling (the order of the files is shuffled too); None
            keeps the order.
        decode: decode pictures; False leaves JPEG and PNG files as strings.
    """
    from dscache_sdk.tfparse import dataset

    names = [os.fspath(file) for file in files]
    return dataset(names, features, batch_size, shuffle, decode)
