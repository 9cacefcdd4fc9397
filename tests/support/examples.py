"""Examples as we read them, compared with what TensorFlow makes of the same records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def assert_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, jpeg: int = 8) -> None:
    """Fail unless both say the same. `theirs` are tensors or numpy values.

    A feature `image` is decoded by two JPEG decoders: its pixels may differ by `jpeg`.
    """
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        have = theirs[name].numpy() if hasattr(theirs[name], "numpy") else theirs[name]
        if name == "image" and jpeg:
            assert np.abs(value.astype(int) - have.astype(int)).max() <= jpeg
        elif isinstance(value, str):
            assert have.decode() == value
        elif isinstance(value, bytes):
            assert have == value
        else:
            assert np.asarray(have).dtype == value.dtype, name
            np.testing.assert_array_equal(have, value, err_msg=name)
