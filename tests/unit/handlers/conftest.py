"""Real photographs and building, for the tests of all handlers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import sklearn
from PIL import Image as PillowImage

from dscache_sdk import DatasetHandler
from dscache_sdk.reading import iter_examples
from support.handlers import Build, Example, Pixels, Save

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"


@pytest.fixture(scope="session")
def photographs() -> dict[str, Pixels]:
    """Photographs of 200 x 300 pixels and other proportions: name -> uint8 [height, width, 3]."""
    sizes = {
        SKLEARN / "china.jpg": (200, 300),
        SKLEARN / "flower.jpg": (220, 180),
        SKIMAGE / "chelsea.png": (150, 225),
        SKIMAGE / "coffee.png": (160, 240),
        SKIMAGE / "astronaut.png": (200, 200),
        SKIMAGE / "rocket.jpg": (213, 320),
    }
    found = {}
    for path, (height, width) in sizes.items():
        with PillowImage.open(path) as picture:
            found[path.stem] = np.asarray(picture.convert("RGB").resize((width, height)))
    return found


@pytest.fixture
def build() -> Build:
    """Build a handler into a folder; returns the decoded examples."""

    def run(handler: DatasetHandler, folder: Path) -> list[Example]:
        folder.mkdir(exist_ok=True)
        handler.output_dir = folder
        examples = list(iter_examples(handler.as_tfrecord(), handler.features))
        assert examples, "tests look at each of them"
        return examples

    return run


@pytest.fixture
def save() -> Save:
    """Save pixels as a picture, with its folders."""

    def write(path: Path, pixels: Pixels, **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(pixels).save(path, **options)
        return path

    return write
