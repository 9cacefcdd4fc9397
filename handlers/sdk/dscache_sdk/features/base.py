"""The base class of features, and checks that they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dscache_sdk.errors import FeatureError

Shape = tuple[int | None, ...]
Encoded = bytes | list[bytes] | npt.NDArray[Any]

TFDS_FEATURES = "tensorflow_datasets.core.features."


class Feature:
    """One named value of every example: how it is written, read and described.

    Two features are equal if features.json describes them equally; the JPEG quality, for example,
    does not count, because readers do not need it.

    Attributes:
        parts: names of the record's columns below the feature's name (``image/value``); empty if
            the feature is one column.
        required: False if an empty value may be missing from the record.
        fast: the shortcut that `compile_encoder` may take.
    """

    parts: tuple[str, ...] = ()
    required: bool = True
    fast: str = ""

    def encode(self, value: Any) -> Encoded | dict[str, Encoded]:
        """Encode a value for the record: bytes, a list of bytes, float32 or int64 numbers.

        A feature with `parts` returns a dict of them.

        Raises:
            FeatureError: the value has the wrong type, dtype, shape or range.
        """
        raise NotImplementedError

    def decode(self, raw: Any) -> Any:
        """Decode the value from a column of `decode_example` (for parts, a dict of columns).

        Raises:
            FeatureError: the column does not match the feature.
        """
        raise NotImplementedError

    def tfds_json(self) -> dict[str, Any]:
        """The feature as TFDS writes it into features.json."""
        raise NotImplementedError

    def array_layout(self) -> tuple[np.dtype[Any], tuple[int, ...], bytes]:
        """(dtype, shape, wire tag) if `fast` is "array": the record has the array's own bytes."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feature) and self.tfds_json() == other.tfds_json()

    def __hash__(self) -> int:
        return hash(repr(self.tfds_json()))


def shape_json(shape: Shape) -> dict[str, Any]:
    """A shape in the form of TFDS: free dimensions are -1, 64-bit integers are strings."""
    if not shape:
        return {}
    return {"dimensions": [str(-1 if size is None else size) for size in shape]}


def checked_shape(shape: Any) -> Shape:
    """Return the shape as a tuple. Raises FeatureError if it is invalid."""
    try:
        sizes = tuple(shape)
    except TypeError:
        raise FeatureError(f"shape must be a tuple of sizes, got {shape!r}") from None
    for size in sizes:
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        if size is not None and not whole:
            raise FeatureError(
                f"shape {sizes} has the size {size!r}; sizes must be integers or None"
            )
    return sizes


def fits(shape: tuple[int, ...], declared: Shape) -> bool:
    """Whether an array's shape matches a declared one (None matches every size)."""
    return len(shape) == len(declared) and all(
        expected is None or size == expected for size, expected in zip(shape, declared, strict=True)
    )


def one_bytes(raw: Any) -> bytes:
    """The only element of a bytes column. Raises FeatureError if there is not exactly one."""
    if not isinstance(raw, list) or len(raw) != 1:
        raise FeatureError(f"expected one bytes value in the record, found {describe(raw)}")
    value: bytes = raw[0]
    return value


def describe(raw: Any) -> str:
    """Describe a column's content, for messages."""
    if isinstance(raw, np.ndarray):
        return f"{raw.size} × {raw.dtype}"
    return f"{len(raw)} × bytes"
