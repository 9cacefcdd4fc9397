"""The pixels of a variation: cut an image or mask, change its exposure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_handlers.geometry import Cut
from dataset_handlers.opencv import opencv

Pixels = npt.NDArray[np.uint8]

MAX_SIDE_PIXELS = 24_000  # rotated by 45 degrees it still fits the 16 bits of OpenCV's maps
_FINE = 1024  # coordinates are summed in 1024ths of a pixel
_PARTS = 32  # the resolution of OpenCV's maps: 32nds of a pixel
_BLOCK_ROWS = 64  # the maps of 64 rows fit the processor's cache


def take(pixels: Pixels, cut: Cut, *, nearest: bool = False, mirror: bool = True) -> Pixels:
    """The part of an image or mask that a cut shows.

    A cut without rotation is a view of the source. A rotated one is interpolated between four
    pixels, or takes the nearest one; the area outside the image is filled.

    Args:
        pixels: uint8 [height, width] or [height, width, channels].
        cut: from `cut_for`, for an image of this height and width.
        nearest: take the nearest pixel; for masks, since it creates no new values.
        mirror: fill the area outside with the mirrored image; False: with black.

    Raises:
        ValueError: the image to be rotated is wider or higher than MAX_SIDE_PIXELS.
    """
    if cut.degrees:
        part = _turned(pixels, cut, nearest, mirror)
    else:
        left, top = (int(place) for place in cut.corner)
        part = pixels[top : top + cut.size[0], left : left + cut.size[1]]
    return part[:, ::-1] if cut.flip else part


def _turned(pixels: Pixels, cut: Cut, nearest: bool, mirror: bool) -> Pixels:
    """Rotate with integer arithmetic only.

    OpenCV's warpAffine is as fast, but rounds differently on processors with and without fused
    multiply-add, so the bytes would depend on the machine. With an integer map, remap gives the
    same bytes everywhere.
    """
    if max(pixels.shape[:2]) > MAX_SIDE_PIXELS:
        raise ValueError(
            f"an image of {pixels.shape[0]} x {pixels.shape[1]} pixels is too large to rotate "
            f"(at most {MAX_SIDE_PIXELS}); set image_size"
        )
    cv2 = opencv()
    source = np.ascontiguousarray(pixels)
    out = np.empty((*cut.size, *pixels.shape[2:]), np.uint8)
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    border = cv2.BORDER_REFLECT if mirror else cv2.BORDER_CONSTANT
    for start in range(0, cut.size[0], _BLOCK_ROWS):
        block = out[start : start + _BLOCK_ROWS]
        whole, parts = _maps(cut, start, len(block), nearest)
        cv2.remap(source, whole, parts, method, dst=block, borderMode=border)
    return out


def _maps(
    cut: Cut, start: int, rows: int, nearest: bool
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16] | None]:
    """The source coordinates of some rows, as OpenCV's fixed-point maps.

    Returns:
        int16 [rows, width, 2]: x and y of the source pixel; uint16 [rows, width]: the position
        within it, 32 * its 32nds in y + its 32nds in x (None for the nearest pixel).
    """
    cosine, sine = cut.direction
    across = np.arange(cut.size[1]) + 0.5
    down = np.arange(start, start + rows) + 0.5
    # Pixel centres: 0.5 is the centre of the first pixel. The nearest one is found by rounding.
    shift = 0.0 if nearest else -0.5
    x = _places(cosine * across, sine * down + cut.corner[0] + shift)
    y = _places(-sine * across, cosine * down + cut.corner[1] + shift)
    whole = np.empty((rows, cut.size[1], 2), np.int16)
    np.right_shift(x, 5, out=whole[..., 0], casting="unsafe")
    np.right_shift(y, 5, out=whole[..., 1], casting="unsafe")
    if nearest:
        return whole, None
    x &= _PARTS - 1
    y &= _PARTS - 1
    return whole, (y * _PARTS + x).astype(np.uint16)


def _places(
    across: npt.NDArray[np.floating[Any]], down: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.int32]:
    """Sums of the column and row coordinates, int32 [rows, columns], in 32nds of a pixel."""
    columns = np.rint(across * _FINE).astype(np.int32)
    lines = np.rint(down * _FINE).astype(np.int32)
    sums: npt.NDArray[np.int32] = columns[None, :] + lines[:, None]
    sums += _FINE // _PARTS // 2
    sums >>= 5
    return sums


def expose(pixels: Pixels, stops: float) -> Pixels:
    """Change the exposure of an sRGB image, in stops; 0 returns the image itself."""
    if not stops:
        return pixels
    exposed: Pixels = opencv().LUT(np.ascontiguousarray(pixels), exposure_table(stops))
    return exposed


@lru_cache(maxsize=512)
def exposure_table(stops: float) -> Pixels:
    """256 sRGB values after a change of exposure, uint8 [256].

    One stop doubles the light, so the values are made linear first (IEC 61966-2-1), as in a camera.
    Values above white are clipped.
    """
    values = np.arange(256) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear * 2.0**stops, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: Pixels = np.rint(encoded * 255).astype(np.uint8)
    return table
