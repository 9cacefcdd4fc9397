"""The Image feature: images and masks as JPEG, PNG or raw pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dscache_sdk.errors import FeatureError
from dscache_sdk.features.base import (
    TFDS_FEATURES,
    Encoded,
    Feature,
    Shape,
    checked_shape,
    fits,
    one_bytes,
    shape_json,
)
from dscache_sdk.features.basic import Tensor
from dscache_sdk.pillow import opened

RAW_MARK = "raw pixels"
MAGIC = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
_CHANNELS = {"jpeg": (1, 3), "png": (1, 3, 4), "raw": (1, 2, 3, 4)}
_PNG_LEVEL = 1  # four times as fast as zlib's default; files are a few percent larger


class Image(Feature):
    """An image: uint8 [height, width, channels].

    Args:
        encoding: "jpeg" (small, lossy), "png" (lossless) or "raw" (needs no decoding).
        shape: sizes; None: free. One channel is a mask or a greyscale image.
        quality: JPEG quality, 1 to 100.

    For TFDS, raw pixels are a uint8 tensor; with free height and width the shape is written too,
    in the columns ``<name>/shape`` and ``<name>/value``.

    Raises:
        FeatureError: the combination is not supported.
    """

    def __init__(
        self, encoding: str = "jpeg", shape: Any = (None, None, 3), quality: int = 90
    ) -> None:
        if encoding not in _CHANNELS:
            raise FeatureError(f"encoding must be jpeg, png or raw, got {encoding!r}")
        self.encoding = encoding
        self.shape = checked_shape(shape)
        self.quality = quality
        if len(self.shape) != 3 or self.shape[2] not in _CHANNELS[encoding]:
            allowed = " or ".join(map(str, _CHANNELS[encoding]))
            raise FeatureError(
                f"shape {self.shape} is not that of an image; {encoding} needs "
                f"(height, width, {allowed})"
            )
        if not 1 <= quality <= 100:
            raise FeatureError(f"quality must be from 1 to 100, got {quality}")
        if encoding == "raw":
            self._tensor = Tensor(self.shape, "uint8")
            self.parts, self.fast = self._tensor.parts, self._tensor.fast

    def array_layout(self) -> tuple[np.dtype[Any], tuple[int, ...], bytes]:
        """See Feature."""
        return self._tensor.array_layout()

    def encode(self, value: Any) -> Encoded | dict[str, Encoded]:
        """Encode a uint8 array [h, w, c] ([h, w] for one channel) or a Pillow image.

        Bytes that are already a file of this encoding are written unchanged.
        """
        if isinstance(value, bytes) and self.encoding != "raw":
            if not value.startswith(MAGIC[self.encoding]):
                raise FeatureError(f"these bytes are not a {self.encoding} file")
            return value
        pixels = self._pixels(value)
        if self.encoding == "raw":
            return self._tensor.encode(pixels)
        return _compress(pixels, self.encoding, self.quality)

    def _pixels(self, value: Any) -> npt.NDArray[np.uint8]:
        if not isinstance(value, np.ndarray):
            if not hasattr(value, "getbands"):
                raise FeatureError(f"expected an image, got {type(value).__name__}")
            value = np.asarray(value)
        if value.dtype != np.uint8:
            raise FeatureError(f"dtype {value.dtype} is not uint8")
        if value.ndim == 2:
            value = value[:, :, None]
        if not fits(value.shape, self.shape):
            raise FeatureError(f"shape {value.shape} does not match the declared {self.shape}")
        if 0 in value.shape:
            raise FeatureError(f"shape {value.shape} has no pixels")
        pixels: npt.NDArray[np.uint8] = value
        return pixels

    def decode(self, raw: Any) -> npt.NDArray[np.uint8]:
        """Decode to uint8 [h, w, c]."""
        if self.encoding == "raw":
            pixels: npt.NDArray[np.uint8] = self._tensor.decode(raw)
        else:
            pixels = _decompress(one_bytes(raw), self.shape)
        if not fits(pixels.shape, self.shape):
            raise FeatureError(f"shape {pixels.shape} does not match the declared {self.shape}")
        return pixels

    def tfds_json(self) -> dict[str, Any]:
        """See Feature."""
        if self.encoding == "raw":
            return {**self._tensor.tfds_json(), "description": RAW_MARK}
        return {
            "pythonClassName": TFDS_FEATURES + "image_feature.Image",
            "image": {
                "shape": shape_json(self.shape),
                "dtype": "uint8",
                "encodingFormat": self.encoding,
            },
        }

    def __repr__(self) -> str:
        return f"Image('{self.encoding}', {self.shape})"


def _compress(pixels: npt.NDArray[np.uint8], encoding: str, quality: int) -> bytes:
    from PIL import Image as PillowImage

    image = PillowImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if encoding == "jpeg":
        image.save(buffer, "JPEG", quality=quality)
    else:
        image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def _decompress(data: bytes, shape: Shape) -> npt.NDArray[np.uint8]:
    channels = shape[2] or 3
    try:
        # of other formats, Pillow's decoders need not see what a record holds
        with opened(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if not fits((image.height, image.width), shape[:2]):
                size = (image.height, image.width)
                raise FeatureError(f"shape {(*size, channels)} does not match the declared {shape}")
            pixels = np.array(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    except (OSError, ValueError) as error:
        raise FeatureError(f"not a readable image: {error}") from error
    return pixels.reshape(pixels.shape[0], pixels.shape[1], channels)
