"""The ClassLabels feature: any number of classes per example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dscache_sdk.errors import FeatureError
from dscache_sdk.features.base import TFDS_FEATURES
from dscache_sdk.features.basic import ClassLabel, Tensor


class ClassLabels(Tensor):
    """Classes of a fixed list, any number per example, as numbers: int64 [n]. -1: no label.

    Args:
        names: the classes in the order of their numbers.
        num_classes: number of classes, if they have no names.

    Raises:
        FeatureError: neither or both are given, or names are not distinct.
    """

    def __init__(
        self, names: Sequence[str] | None = None, *, num_classes: int | None = None
    ) -> None:
        super().__init__((None,), "int64")
        self.label = ClassLabel(names, num_classes=num_classes)

    @property
    def names(self) -> list[str] | None:
        """The classes in the order of their numbers; None if they have no names."""
        return self.label.names

    def encode(self, value: Any) -> npt.NDArray[np.int64]:
        """Encode numbers or names (a list or an array [n], possibly empty) to int64 [n]."""
        if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
            raise FeatureError(f"expected a list of classes, got {type(value).__name__}")
        if isinstance(value, np.ndarray) and value.ndim != 1:
            raise FeatureError(f"expected classes [n], got shape {value.shape}")
        numbers = [self.label.encode(item)[0] for item in value]
        return np.array(numbers, dtype=np.int64)

    def tfds_json(self) -> dict[str, Any]:
        """See Feature."""
        return {
            "pythonClassName": TFDS_FEATURES + "sequence_feature.Sequence",
            "sequence": {"feature": self.label.tfds_json(), "length": "-1"},
        }

    def __repr__(self) -> str:
        return repr(self.label).replace("ClassLabel", "ClassLabels", 1)
