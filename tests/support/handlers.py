"""What the tests of handlers share: the types of their fixtures, and the names of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dscache_sdk import ClassLabel, ClassLabels, DatasetHandler
from dscache_sdk.features.base import Feature

Pixels = npt.NDArray[np.uint8]
Example = dict[str, Any]
Build = Callable[[DatasetHandler, Path], list[Example]]


class Save(Protocol):
    """Saves pixels as a picture and returns its path; the options are Pillow's."""

    def __call__(self, path: Path, pixels: Pixels, **options: Any) -> Path: ...


def class_names(feature: Feature) -> list[str]:
    """The names of the classes of a label, or of labels."""
    assert isinstance(feature, ClassLabel | ClassLabels)
    assert feature.names is not None
    return feature.names
