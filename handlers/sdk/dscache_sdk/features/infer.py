"""Infer the features of records whose handler declares none."""

from __future__ import annotations

from typing import Any

import numpy as np

from dscache_sdk.codec import decode_example
from dscache_sdk.features.base import Feature
from dscache_sdk.features.basic import Scalar, Tensor, Text
from dscache_sdk.features.image import MAGIC, Image

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # IHDR colour type -> channels after decoding


def infer_features(record: bytes, *more: bytes) -> dict[str, Feature]:
    """Infer features from one or more records.

    A single number becomes a Scalar, several a Tensor of free length. Bytes become an Image (by
    their magic number), Text if they are valid UTF-8, otherwise a "string" Scalar. A column that is
    missing or has another length in one of the records gets a free length.

    Raises:
        RecordError: a record is not a tf.train.Example.
    """
    decoded = [decode_example(item) for item in (record, *more)]
    names = sorted(set().union(*decoded))
    return {name: _infer([columns.get(name, []) for columns in decoded]) for name in names}


def _infer(values: list[Any]) -> Feature:
    numbers = [value for value in values if isinstance(value, np.ndarray)]
    single = all(len(value) == 1 for value in values)
    if numbers:
        dtype = numbers[0].dtype.name
        return Scalar(dtype) if single else Tensor((None,), dtype)
    if not single:
        return Tensor((None,), "string")
    return _infer_bytes([value[0] for value in values])


def _infer_bytes(values: list[bytes]) -> Feature:
    for encoding, magic in MAGIC.items():
        if all(value.startswith(magic) for value in values):
            channels = {(_png if encoding == "png" else _jpeg)(value) for value in values}
            return Image(encoding, (None, None, max(channels)))
    return Text() if all(map(_is_text, values)) else Scalar("string")


def _is_text(value: bytes) -> bool:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return "\x00" not in text


def _png(data: bytes) -> int:
    return _PNG_CHANNELS.get(data[25], 3) if len(data) > 25 else 3


def _jpeg(data: bytes) -> int:
    """Channels from the first start-of-frame segment (ITU T.81, B.2.2); CMYK reads as 3."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return 1 if data[at + 9] == 1 else 3
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 3
