"""COCO's run lengths: masks that the COCO API reads too, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from dataset_handlers.run_lengths import mask_of, unpack

MASKS = st.tuples(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1)
)


@given(MASKS)
def test_both_spellings_are_the_mask_that_the_coco_api_wrote(
    drawn: tuple[int, int, int, float],
) -> None:
    height, width, seed, share = drawn
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    packed = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    for counts in (packed, unpack(packed)):
        read = mask_of({"size": [height, width], "counts": counts}, (height, width))
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, mask)


def packed(*lengths: int) -> str:
    """What the COCO API packs, for masks of any lengths."""
    mask = np.repeat(np.arange(len(lengths)) & 1, lengths).astype(np.uint8)
    counts: str = coco_mask.encode(np.asfortranarray(mask[:, None]))["counts"].decode()
    return counts


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "cover 0 pixels, but the image has 100"),
        (packed(40, 59), "cover 99 pixels, but the image has 100"),
        (packed(40, 61), "cover 101 pixels, but the image has 100"),
        ([], "cover 0 pixels"),
        ([40, 59], "cover 99 pixels"),
        ([110, -10], "a run of -10 pixels"),
        ([99.5, 0.5], r"a run of 99\.5 pixels"),
        (["100"], "a run of '100' pixels"),
        ([True] * 100, "a run of True pixels"),
        ([None], "a run of None pixels"),
        ([10**30], "cover 1000000"),
        ("n0", "cover 30 pixels|a run of"),
        ("é", "which packs no number"),
        ("\x1b[2J", "which packs no number"),
        ("ooo", "end within a number"),
        ("o" * 100_000, "too long"),
        (None, "are not for an image"),
        ({"a": 1}, "are not for an image"),
    ],
)
def test_nothing_else_is_a_mask(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask_of({"size": [10, 10], "counts": counts}, (10, 10))


@pytest.mark.parametrize("size", [[10, 11], [11, 10], [100, 1], [10], [10, 10, 1], "10", None])
def test_the_size_is_that_of_the_image(size: Any) -> None:
    with pytest.raises(ValueError, match=r"image of 10 x 10 \(height x width\): their size is"):
        mask_of({"size": size, "counts": [100]}, (10, 10))


@given(st.text() | st.lists(st.integers() | st.floats() | st.none() | st.text()))
def test_whatever_comes_is_a_mask_or_refused(counts: Any) -> None:
    try:
        mask = mask_of({"size": [4, 5], "counts": counts}, (4, 5))
    except ValueError:
        return
    assert mask.shape == (4, 5)
    assert set(np.unique(mask)) <= {0, 1}
