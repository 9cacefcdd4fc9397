"""Features of numbers and text: Text, ClassLabel, Tensor, Scalar, BBoxes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dscache_sdk import wire
from dscache_sdk.errors import FeatureError
from dscache_sdk.features.base import (
    TFDS_FEATURES,
    Encoded,
    Feature,
    checked_shape,
    describe,
    fits,
    one_bytes,
    shape_json,
)

# tf.io.decode_raw supports neither uint32 nor text, so these are always written as lists.
_AS_LISTS = ("float32", "int64", "uint32", "string")
_LIST_ONLY = ("uint32", "string")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = ("bool", *_INTEGERS, "float16", "float32", "float64", "string")


class Text(Feature):
    """Unicode text, written as UTF-8."""

    fast = "text"

    def encode(self, value: Any) -> bytes:
        """Encode text, or bytes that are valid UTF-8, to bytes."""
        if isinstance(value, bytes):
            return self.decode([value]).encode("utf-8")
        if not isinstance(value, str):
            raise FeatureError(f"expected text, got {type(value).__name__}")
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise FeatureError(f"cannot be encoded as UTF-8: {error}") from error

    def decode(self, raw: Any) -> str:
        """Decode the record's bytes to str."""
        try:
            return one_bytes(raw).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FeatureError(f"not UTF-8 text: {error}") from error

    def tfds_json(self) -> dict[str, Any]:
        """See Feature."""
        return {"pythonClassName": TFDS_FEATURES + "text_feature.Text", "text": {}}

    def __repr__(self) -> str:
        return "Text()"


class ClassLabel(Feature):
    """One class of a fixed list, written as its number (int64). -1 means no label.

    Args:
        names: the classes in the order of their numbers.
        num_classes: number of classes, if they have no names.

    Raises:
        FeatureError: neither or both are given, or names are not distinct.
    """

    fast = "int"

    def __init__(
        self, names: Sequence[str] | None = None, *, num_classes: int | None = None
    ) -> None:
        if (names is None) == (num_classes is None):
            raise FeatureError("ClassLabel takes either names or num_classes")
        self.names: list[str] | None = None if names is None else list(names)
        if self.names is not None:
            _check_names(self.names)
        self.num_classes = len(self.names) if self.names is not None else int(num_classes or 0)
        if self.num_classes < 1:
            raise FeatureError("ClassLabel needs at least one class")
        self._numbers = {name: number for number, name in enumerate(self.names or [])}

    def encode(self, value: Any) -> npt.NDArray[np.int64]:
        """Encode a class's number or name to int64 [1]."""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            if value not in self._numbers:
                classes = ", ".join(self._numbers) or f"the numbers below {self.num_classes}"
                raise FeatureError(f"no class '{value}'; the classes are {classes}")
            value = self._numbers[value]
        number = _whole(value)
        if not -1 <= number < self.num_classes:
            raise FeatureError(f"class {number} is not in the range 0 to {self.num_classes - 1}")
        return np.array([number], dtype=np.int64)

    def decode(self, raw: Any) -> np.int64:
        """Decode the class's number."""
        value: np.int64 = _numbers(raw, "i", 1)[0]
        return value

    def name_of(self, number: int) -> str:
        """The class's name; "" for -1, and the number as text if classes have no names."""
        if number < 0:
            return ""
        return self.names[number] if self.names is not None else str(number)

    def tfds_json(self) -> dict[str, Any]:
        """See Feature. Names use TFDS's generic JSON form; its ClassLabel has only a count."""
        described: dict[str, Any] = {
            "pythonClassName": TFDS_FEATURES + "class_label_feature.ClassLabel"
        }
        if self.names is None:
            described["classLabel"] = {"numClasses": str(self.num_classes)}
        else:
            names = json.dumps({"names": self.names}, ensure_ascii=False)
            described["jsonFeature"] = {"json": names}
        return described

    def __repr__(self) -> str:
        if self.names is None:
            return f"ClassLabel(num_classes={self.num_classes})"
        return f"ClassLabel({self.names!r})"


class Tensor(Feature):
    """Numbers (or strings) of one dtype and a declared shape.

    float32, int64, uint32 and string are written as lists of tf.train.Example, all other dtypes
    as little-endian bytes (no upcasting, and pixels at memory speed). With two or more free
    dimensions, the shape is written too: the columns are ``<name>/shape`` and ``<name>/value``.

    Args:
        shape: sizes; None: free.
        dtype: a numpy dtype or its name, or "string".
        encoding: "none" (lists) or "bytes"; chosen as above by default.

    Raises:
        FeatureError: the dtype or the combination is not supported.
    """

    def __init__(self, shape: Any, dtype: Any, encoding: str | None = None) -> None:
        self.shape = checked_shape(shape)
        self.dtype = _dtype_name(dtype)
        dynamic = self.shape.count(None) > 1
        as_list = self.dtype in _AS_LISTS and not (dynamic and self.dtype not in _LIST_ONLY)
        self.encoding = encoding or ("none" if as_list else "bytes")
        if self.encoding not in ("none", "bytes"):
            raise FeatureError(f"encoding must be 'none' or 'bytes', got '{self.encoding}'")
        if self.encoding == "bytes" and self.dtype in _LIST_ONLY:
            raise FeatureError(f"dtype {self.dtype} cannot be written as bytes")
        if self.encoding == "none" and dynamic:
            raise FeatureError(
                f"encoding 'none' supports one free size, but shape {self.shape} has more"
            )
        if dynamic:
            self.parts = ("shape", "value")
        self.required = None not in self.shape or self.encoding == "bytes"
        if self._is_plain():
            self.fast = "array"

    def _is_plain(self) -> bool:
        own_bytes = self.encoding == "bytes" or self.dtype == "float32"
        return None not in self.shape and own_bytes and sys.byteorder == "little"

    def array_layout(self) -> tuple[np.dtype[Any], tuple[int, ...], bytes]:
        """See Feature."""
        tag = wire.BYTES_TAG if self.encoding == "bytes" else wire.FLOAT_TAG
        return np.dtype(self.dtype), tuple(size or 0 for size in self.shape), tag

    def encode(self, value: Any) -> Encoded | dict[str, Encoded]:
        """Encode an array (or nested list) of exactly this dtype and shape."""
        array = self._checked(value)
        if self.dtype == "string":
            return [_text_bytes(item) for item in array.ravel().tolist()]
        if self.encoding == "none":
            kind = np.float32 if array.dtype.kind == "f" else np.int64
            return array.astype(kind).ravel()
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        if self.parts:
            return {"shape": np.array(array.shape, dtype=np.int64), "value": data}
        return data

    def _checked(self, value: Any) -> npt.NDArray[Any]:
        array = as_array(value, self.dtype)
        if not fits(array.shape, self.shape):
            raise FeatureError(f"shape {array.shape} does not match the declared {self.shape}")
        return array

    def decode(self, raw: Any) -> Any:
        """Decode to an array of the declared shape (strings: object array of bytes)."""
        shape: tuple[int, ...] = tuple(-1 if size is None else size for size in self.shape)
        if isinstance(raw, dict):
            shape = tuple(int(size) for size in _numbers(raw["shape"], "i", len(self.shape)))
            if min(shape) < 0:
                raise FeatureError(f"the record says that the shape is {shape}")
            raw = raw["value"]
        return self._shaped(self._flat(raw), shape)

    def _flat(self, raw: Any) -> npt.NDArray[Any]:
        if self.dtype == "string":
            if isinstance(raw, np.ndarray):
                raise FeatureError(f"expected strings in the record, found {describe(raw)}")
            flat = np.empty(len(raw), dtype=object)
            flat[:] = raw
            return flat
        if self.encoding == "none":
            kind = "f" if np.dtype(self.dtype).kind == "f" else "i"
            return _numbers(raw, kind).astype(self.dtype)
        data = one_bytes(raw)
        try:
            return np.frombuffer(data, dtype=np.dtype(self.dtype).newbyteorder("<")).astype(
                self.dtype, copy=False
            )
        except ValueError as error:
            raise FeatureError(f"{len(data)} bytes are not {self.dtype} values") from error

    def _shaped(self, flat: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        if flat.size == 0 and -1 in shape:
            shape = tuple(0 if size == -1 else size for size in shape)
        try:
            return flat.reshape(shape)
        except ValueError as error:
            raise FeatureError(f"{flat.size} values do not fill the shape {self.shape}") from error

    def tfds_json(self) -> dict[str, Any]:
        """See Feature."""
        return {
            "pythonClassName": TFDS_FEATURES + "tensor_feature.Tensor",
            "tensor": {
                "shape": shape_json(self.shape),
                "dtype": self.dtype,
                "encoding": self.encoding,
            },
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape}, '{self.dtype}')"


class Scalar(Tensor):
    """One number (or, with dtype "string", one bytes value that need not be text).

    Integers are written as int64, float64 and float16 as their bytes, so nothing is rounded.
    """

    def __init__(self, dtype: Any) -> None:
        name = _dtype_name(dtype)
        super().__init__((), name, "bytes" if name in ("float64", "float16") else "none")
        self.fast = {"none": "int", "bytes": ""}[self.encoding]
        if name in ("float32", "string"):
            self.fast = "float" if name == "float32" else ""

    def encode(self, value: Any) -> Encoded | dict[str, Encoded]:
        """Encode one number."""
        if self.dtype == "string":
            return [_text_bytes(value)]
        if self.dtype == "uint64":
            # TFDS stores values that do not fit int64 as their bit pattern.
            return self._checked(value).ravel().view(np.int64)
        return super().encode(value)

    def decode(self, raw: Any) -> Any:
        """Decode to a numpy scalar, or to bytes for "string"."""
        if self.dtype == "string":
            return one_bytes(raw)
        if self.dtype == "uint64":
            return _numbers(raw, "i", 1).view(np.uint64)[0]
        return super().decode(raw)[()]

    def tfds_json(self) -> dict[str, Any]:
        """See Feature."""
        described = super().tfds_json()
        if self.encoding == "none":
            described["pythonClassName"] = TFDS_FEATURES + "scalar.Scalar"
        return described

    def __repr__(self) -> str:
        return f"Scalar('{self.dtype}')"


class BBoxes(Feature):
    """Boxes of one image: float32 [n, 4], each ymin, xmin, ymax, xmax as fractions 0..1."""

    required = False

    def encode(self, value: Any) -> npt.NDArray[np.float32]:
        """Encode boxes [n, 4] (a list or array, possibly empty) to float32 [4 n]."""
        try:
            boxes = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise FeatureError(f"expected boxes [n, 4], got {type(value).__name__}") from error
        if boxes.size == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise FeatureError(f"expected boxes [n, 4], got shape {boxes.shape}")
        inside = ((boxes >= 0) & (boxes <= 1)).all(axis=1)
        ordered = (boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3])
        for number in np.flatnonzero(~(inside & ordered)).tolist():
            raise FeatureError(
                f"box {number} is {boxes[number].tolist()}; expected ymin <= ymax and "
                "xmin <= xmax, as fractions of the image from 0 to 1"
            )
        return boxes.ravel()

    def decode(self, raw: Any) -> npt.NDArray[np.float32]:
        """Decode to float32 [n, 4]."""
        flat = _numbers(raw, "f").astype(np.float32, copy=False)
        if flat.size % 4:
            raise FeatureError(
                f"{flat.size} numbers are not a multiple of four, so they are not boxes"
            )
        return flat.reshape(-1, 4)

    def tfds_json(self) -> dict[str, Any]:
        """See Feature."""
        box = {
            "pythonClassName": TFDS_FEATURES + "bounding_boxes.BBoxFeature",
            "boundingBox": {
                "shape": shape_json((4,)),
                "dtype": "float32",
                "bboxFormat": "REL_YXYX",
            },
        }
        return {
            "pythonClassName": TFDS_FEATURES + "sequence_feature.Sequence",
            "sequence": {"feature": box, "length": "-1"},
        }

    def __repr__(self) -> str:
        return "BBoxes()"


def _check_names(names: list[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not name:
            raise FeatureError(f"names of classes must be non-empty text, got {name!r}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FeatureError(f"the class '{twice}' occurs twice")


def as_array(value: Any, dtype: str) -> npt.NDArray[Any]:
    """The value as an array of this dtype.

    An array must already have the dtype (another one is usually a mistake that loses information);
    Python numbers and lists are converted if that loses nothing.

    Raises:
        FeatureError: the array has another dtype, or the dtype cannot represent a number.
    """
    if dtype == "string":
        return np.asarray(value, dtype=object)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        array = value
        if array.dtype.kind != np.dtype(dtype).kind or array.itemsize != np.dtype(dtype).itemsize:
            raise FeatureError(f"dtype {array.dtype} is not the declared {dtype}")
        return array.astype(dtype, copy=False)
    try:
        loose = np.asarray(value)
    except ValueError as error:
        raise FeatureError(f"not an array: {error}") from error
    if loose.size == 0:
        return loose.astype(dtype)
    if loose.dtype.kind not in "biuf":
        raise FeatureError(f"expected {dtype}, got {type(value).__name__}")
    return _converted(loose, np.dtype(dtype))


def _converted(loose: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = loose.astype(dtype)
        if (np.isfinite(loose) & ~np.isfinite(array)).any():
            raise FeatureError(f"{loose.max()} exceeds the range of {dtype}")
        return array
    with np.errstate(invalid="ignore"):
        array = loose.astype(dtype)
    if not (array == loose).all():
        raise FeatureError(f"{loose.ravel()[:4].tolist()} cannot be written as {dtype}")
    return array


def _dtype_name(dtype: Any) -> str:
    if dtype in ("string", str, bytes, object):
        return "string"
    try:
        name = str(np.dtype(dtype).name)
    except TypeError:
        name = str(dtype)
    if name.startswith(("str", "bytes")) or name == "object":
        return "string"
    if name not in _DTYPES:
        raise FeatureError(f"dtype {dtype!r} cannot be written; use one of {', '.join(_DTYPES)}")
    return name


def _text_bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode("utf-8")
    raise FeatureError(f"expected text or bytes, got {type(item).__name__}")


def _whole(value: Any) -> int:
    try:
        number = int(value)
        if number == value:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise FeatureError(f"expected an integer, got {value!r}")


def _numbers(raw: Any, kind: str, count: int | None = None) -> npt.NDArray[Any]:
    """The numbers of a column, all of one kind: "i" int64, "f" float32."""
    if isinstance(raw, list):
        if raw:
            raise FeatureError(f"expected numbers in the record, found {describe(raw)}")
        raw = np.empty(0, dtype=np.float32 if kind == "f" else np.int64)
    if raw.dtype.kind != kind:
        wanted = "fractions" if kind == "f" else "integers"
        raise FeatureError(f"expected {wanted} in the record, found {describe(raw)}")
    if count is not None and raw.size != count:
        raise FeatureError(f"expected {count} numbers in the record, found {raw.size}")
    array: npt.NDArray[Any] = raw
    return array
