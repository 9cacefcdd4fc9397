"""What every feature offers, and the checks they share."""

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

    Two features are equal when datasets written with them are described equally (so the JPEG
    quality, which no reader needs, does not count).

    Attributes:
        parts: names of the record's columns below the feature's own (``image/value``); empty
            when the feature is one column.
        required: False where an empty value may be missing from the record.
        fast: which shortcut `compile_encoder` may take.
    """

    parts: tuple[str, ...] = ()
    required: bool = True
    fast: str = ""

    def encode(self, value: Any) -> Encoded | dict[str, Encoded]:
        """Return what goes into the record: bytes, a list of bytes, float32 or int64 numbers.

        A feature with `parts` returns a dict of them.

        Raises:
            FeatureError: the value has the wrong type, dtype, shape or range.
        """
        raise NotImplementedError

    def decode(self, raw: Any) -> Any:
        """Return the value from what `decode_example` found (a dict for a feature with parts).

        Raises:
            FeatureError: the record does not hold what this feature writes.
        """
        raise NotImplementedError

    def tfds_json(self) -> dict[str, Any]:
        """The feature as TFDS writes it into features.json."""
        raise NotImplementedError

    def array_layout(self) -> tuple[np.dtype[Any], tuple[int, ...], bytes]:
        """(dtype, shape, wire tag) of an "array" feature whose bytes are the array's own."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feature) and self.tfds_json() == other.tfds_json()

    def __hash__(self) -> int:
        return hash(repr(self.tfds_json()))


def shape_json(shape: Shape) -> dict[str, Any]:
    """A shape as TFDS writes it: free dimensions are -1, 64-bit integers are strings."""
    if not shape:
        return {}
    return {"dimensions": [str(-1 if size is None else size) for size in shape]}


def checked_shape(shape: Any) -> Shape:
    """Return the shape as a tuple. Raises FeatureError when it is none."""
    try:
        sizes = tuple(shape)
    except TypeError:
        raise FeatureError(f"shape must be a tuple of sizes, got {shape!r}") from None
    for size in sizes:
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        if size is not None and not whole:
            raise FeatureError(f"shape {sizes} holds {size!r}; sizes are whole numbers or None")
    return sizes


def fits(shape: tuple[int, ...], declared: Shape) -> bool:
    """Whether an array's shape agrees with a declared one (None fits every size)."""
    return len(shape) == len(declared) and all(
        want is None or have == want for have, want in zip(shape, declared, strict=True)
    )


def one_bytes(raw: Any) -> bytes:
    """The only element of a bytes column. Raises FeatureError when there is not exactly one."""
    if not isinstance(raw, list) or len(raw) != 1:
        raise FeatureError(f"expected one bytes value in the record, found {describe(raw)}")
    value: bytes = raw[0]
    return value


def describe(raw: Any) -> str:
    """What a column of a record holds, for messages."""
    if isinstance(raw, np.ndarray):
        return f"{raw.size} × {raw.dtype}"
    return f"{len(raw)} × bytes"
