"""tf.data pipelines over record files. The only module of the SDK that imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from dscache_sdk.features.base import Feature
from dscache_sdk.features.basic import BBoxes, ClassLabel, Tensor, Text
from dscache_sdk.features.image import Image
from dscache_sdk.shares import Share

# Parsing 1,024 records of 200 B together is 3 times as fast as 32, and 15 times as fast as one by
# one (2 cores).
_PARSE_RECORDS = 1024
_PARSE_BYTES = 1 << 20  # upper limit for the records parsed together
_READ_BYTES = 1 << 20
# Interleaving files reads records of 2 to 32 KB at two thirds of the speed, but those of 100 KB and
# more 1.2 to 1.5 times as fast (8 files in memory, 2 cores). Pixels of 1.9 MB are parsed two to
# four times as fast one by one as in a batch.
_LARGE_BYTES = 64 << 10
_CONCURRENT_FILES = 4


def dataset(
    share: Share,
    features: Mapping[str, Feature],
    batch_size: int | None,
    shuffle: int | None,
    decode: bool,
    seed: int | None,
) -> tf.data.Dataset:
    """See `dscache_sdk.reading.tfdata`."""
    records = _records(share, shuffle, seed)
    record_bytes = _first_record_bytes(share)
    if record_bytes < _LARGE_BYTES and all(_stacks(each, decode) for each in features.values()):
        return _parsed_together(
            records, _Parser(features, decode, batched=True), record_bytes, batch_size
        )
    if batch_size is None:
        return _mapped(records, _Parser(features, decode, batched=False))
    if _one_by_one(features, decode):
        # decoded in parallel, then batched: one copy, and the first batch is ready sooner
        parsed = records.map(
            _Parser(features, decode, batched=False),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return parsed.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    return _mapped(records.batch(batch_size), _Parser(features, decode, batched=True))


def _parsed_together(
    records: tf.data.Dataset, parse: _Parser, record_bytes: int, batch_size: int | None
) -> tf.data.Dataset:
    """Parse many small records together, whatever the requested batch size."""
    together = min(_PARSE_RECORDS, _PARSE_BYTES // max(record_bytes, 1))
    together = max(together, batch_size or 1)
    parsed = _mapped(records.batch(together), parse)
    if batch_size is None:
        return parsed.unbatch()
    return parsed if batch_size == together else parsed.rebatch(batch_size)


def _records(share: Share, shuffle: int | None, seed: int | None) -> tf.data.Dataset:
    records = _whole(share, shuffle, seed)
    if share.shared:
        shared = tf.data.TFRecordDataset(list(share.shared), buffer_size=_READ_BYTES)
        records = records.concatenate(shared.shard(share.count, share.index))
    return records if shuffle is None else records.shuffle(shuffle, seed=seed)


def _whole(share: Share, shuffle: int | None, seed: int | None) -> tf.data.Dataset:
    files = list(share.files)
    names = tf.data.Dataset.from_tensor_slices(tf.constant(files, tf.string))
    if shuffle is None or not files:
        return tf.data.TFRecordDataset(names, buffer_size=_READ_BYTES)
    names = names.shuffle(len(files), seed=seed)
    if _first_record_bytes(share) < _LARGE_BYTES:
        return tf.data.TFRecordDataset(names, buffer_size=_READ_BYTES)
    return names.interleave(
        lambda name: tf.data.TFRecordDataset(name, buffer_size=_READ_BYTES),
        cycle_length=_CONCURRENT_FILES,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _first_record_bytes(share: Share) -> int:
    """Size of the first record's data; 0 if the first file has no records."""
    for file in (*share.files, *share.shared)[:1]:
        with Path(file).open("rb") as opened:
            return int.from_bytes(opened.read(8), "little")
    return 0


def _mapped(records: tf.data.Dataset, parse: _Parser) -> tf.data.Dataset:
    parsed = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return parsed.prefetch(tf.data.AUTOTUNE)


def _stacks(feature: Feature, decode: bool) -> bool:
    """Whether the values of many records are parsed into one tensor by a single operation."""
    if isinstance(feature, Image):
        return not decode if feature.encoding != "raw" else None not in feature.shape
    if isinstance(feature, Tensor):
        return None not in feature.shape
    return isinstance(feature, Text | ClassLabel)


def _one_by_one(features: Mapping[str, Feature], decode: bool) -> bool:
    """Whether records should be parsed one by one before batching.

    True if something must be decoded, and nothing becomes a RaggedTensor.
    """
    listed = [f for f in features.values() if isinstance(f, Tensor) and f.encoding == "none"]
    ragged = any(None in each.shape for each in listed)
    if ragged or any(isinstance(each, BBoxes) for each in features.values()):
        return False
    return any(
        (decode or each.encoding == "raw")
        if isinstance(each, Image)
        else isinstance(each, Tensor) and each.encoding == "bytes"
        for each in features.values()
    )


class _Parser:
    """Parses one serialised record, or a vector of them, to a dict of decoded tensors."""

    def __init__(self, features: Mapping[str, Feature], decode: bool, *, batched: bool) -> None:
        self._features = dict(features)
        self._decode = decode
        self._batched = batched
        self._specs: dict[str, Any] = {}
        for name, feature in self._features.items():
            self._specs.update(_specs(name, feature, batched))

    def __call__(self, serialised: tf.Tensor) -> dict[str, Any]:
        parse = tf.io.parse_example if self._batched else tf.io.parse_single_example
        columns = parse(serialised, self._specs)
        return {name: self._value(columns, name) for name in self._features}

    def _value(self, columns: dict[str, Any], name: str) -> Any:
        feature = self._features[name]
        if isinstance(feature, Image):
            return self._image(columns, name, feature)
        if isinstance(feature, Tensor):
            return self._tensor(columns, name, feature)
        return columns[name]

    def _image(self, columns: dict[str, Any], name: str, feature: Image) -> Any:
        if feature.encoding == "raw":
            return self._tensor(columns, name, Tensor(feature.shape, "uint8"))
        if not self._decode:
            return columns[name]
        decode = tf.io.decode_jpeg if feature.encoding == "jpeg" else tf.io.decode_png

        def one(data: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(decode(data, channels=feature.shape[2]), feature.shape)

        return self._each(one, columns[name], tf.TensorSpec(feature.shape, tf.uint8))

    def _tensor(self, columns: dict[str, Any], name: str, feature: Tensor) -> Any:
        dtype = tf.dtypes.as_dtype(feature.dtype)
        if feature.encoding == "none":
            return self._list(columns[name], feature, dtype)
        if self._batched and None not in feature.shape:
            return _raw(columns[name], dtype, [-1, *feature.shape])
        if not feature.parts:
            shape = [-1 if size is None else size for size in feature.shape]
            spec = tf.TensorSpec(feature.shape, dtype)
            return self._each(lambda data: _raw(data, dtype, shape), columns[name], spec)
        pair = (columns[f"{name}/value"], columns[f"{name}/shape"])
        spec = tf.TensorSpec(feature.shape, dtype)
        return self._each(
            lambda both: tf.ensure_shape(_raw(both[0], dtype, both[1]), feature.shape), pair, spec
        )

    def _list(self, column: Any, feature: Tensor, dtype: tf.DType) -> Any:
        if None in feature.shape and not self._batched:
            shape = [-1 if size is None else size for size in feature.shape]
            column = tf.ensure_shape(tf.reshape(column, shape), feature.shape)
        if column.dtype == dtype:
            return column
        return tf.cast(column, dtype)

    def _each(self, function: Any, values: Any, spec: tf.TensorSpec) -> Any:
        if self._batched:
            return tf.map_fn(function, values, fn_output_signature=spec)
        return function(values)


def _raw(data: tf.Tensor, dtype: tf.DType, shape: Any) -> tf.Tensor:
    if dtype == tf.uint64:  # decode_raw has no uint64
        return tf.reshape(tf.bitcast(tf.io.decode_raw(data, tf.int64), tf.uint64), shape)
    return tf.reshape(tf.io.decode_raw(data, dtype), shape)


def _specs(name: str, feature: Feature, batched: bool) -> dict[str, Any]:
    if feature.parts:
        rank = len(feature.shape)  # type: ignore[attr-defined]
        return {
            f"{name}/shape": tf.io.FixedLenFeature((rank,), tf.int64),
            f"{name}/value": tf.io.FixedLenFeature((), tf.string),
        }
    if isinstance(feature, BBoxes):
        return {name: _free(name, (None, 4), tf.float32, batched)}
    if isinstance(feature, ClassLabel):
        return {name: tf.io.FixedLenFeature((), tf.int64)}
    if isinstance(feature, Tensor) and feature.encoding == "none":
        dtype = {"float32": tf.float32, "string": tf.string}.get(feature.dtype, tf.int64)
        if None in feature.shape:
            return {name: _free(name, feature.shape, dtype, batched)}
        return {name: tf.io.FixedLenFeature(feature.shape, dtype)}
    return {name: tf.io.FixedLenFeature((), tf.string)}


def _free(name: str, shape: Sequence[int | None], dtype: tf.DType, batched: bool) -> Any:
    """The spec of a free dimension: a RaggedTensor in batches, otherwise a flat tensor."""
    inner = tuple(size for size in shape if size is not None)
    if not batched:
        return tf.io.FixedLenSequenceFeature(inner, dtype, allow_missing=True)
    if shape[0] is not None:
        raise NotImplementedError(
            f"feature '{name}' of shape {tuple(shape)}: in batches, only the first size may be free"
        )
    partitions = [tf.io.RaggedFeature.UniformRowLength(size) for size in inner]
    return tf.io.RaggedFeature(dtype, partitions=partitions, row_splits_dtype=tf.int64)
