"""COCO's run lengths to masks, and nothing else to masks.

A mask is stored column by column as the lengths of its runs, the first of pixels outside:
[3, 2, …] is 3 pixels outside, 2 inside, … They come as a list of numbers or packed into text
(format: `rleToString` of the COCO API's maskApi.c; see `unpack`). Both are checked here the same
way. The COCO API's decoder checks neither: it leaves pixels that no run covers as the memory was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataset_handlers.pixels import Pixels
from dscache_sdk.images import Size

_FIRST_CHARACTER = 48  # "0"
_VALUE_BITS, _MORE, _NEGATIVE = 5, 0x20, 0x10
_MAX_CHARACTERS = 8  # of one number: 40 bits, more than any image has pixels


def mask_of(runs: Any, image: Size) -> Pixels:
    """The mask of a segmentation {"size": [height, width], "counts": list or text}.

    Args:
        runs: as the annotation file has it.
        image: (height, width) that the mask must have.

    Returns:
        uint8 [height, width], 1 inside.

    Raises:
        ValueError: it is not a mask of this image: another size, lengths that are negative or
            no integers, or that do not cover the image exactly; text that is no packed numbers.
    """
    size = runs.get("size") if isinstance(runs, dict) else None
    counts = runs.get("counts") if isinstance(runs, dict) else None
    if size != list(image) or not isinstance(counts, list | str):
        raise ValueError(
            f"a segmentation's run lengths are not for an image of {image[0]} x {image[1]} "
            f"(height x width): their size is {size}"
        )
    lengths = unpack(counts) if isinstance(counts, str) else counts
    _check(lengths, image)
    inside = np.arange(len(lengths), dtype=np.uint8) & 1
    columns = np.repeat(inside, lengths).reshape(image[::-1])
    return np.ascontiguousarray(columns.T)


def unpack(text: str) -> list[int]:
    """The lengths that are packed into text.

    Each character holds 5 bits of a number, lowest first, and a bit that says whether more follow;
    the highest bit of a number's last character is its sign. From the fourth number on they are
    differences to the number before the previous one. Raises ValueError.
    """
    lengths: list[int] = []
    position = 0
    while position < len(text):
        number, position = _number(text, position)
        if len(lengths) > 2:
            number += lengths[-2]
        lengths.append(number)
    return lengths


def _number(text: str, start: int) -> tuple[int, int]:
    """The signed number that starts there, and the position behind it."""
    number = 0
    for index, character in enumerate(text[start : start + _MAX_CHARACTERS]):
        code = ord(character) - _FIRST_CHARACTER
        if not 0 <= code < 1 << (_VALUE_BITS + 1):
            raise ValueError(f"a segmentation's counts hold {character!r}, which packs no number")
        number |= (code & (_MORE - 1)) << (_VALUE_BITS * index)
        if not code & _MORE:
            bits = _VALUE_BITS * (index + 1)
            return number - (1 << bits if code & _NEGATIVE else 0), start + index + 1
    raise ValueError("a segmentation's counts end within a number, or hold one that is too long")


def _check(lengths: Sequence[Any], image: Size) -> None:
    for length in lengths:
        if type(length) is not int or length < 0:  # True is an int, too
            raise ValueError(f"a segmentation has a run of {length!r} pixels")
    covered, pixels = sum(lengths), image[0] * image[1]
    if covered != pixels:
        raise ValueError(
            f"a segmentation's run lengths cover {covered} pixels, but the image has {pixels}"
        )
