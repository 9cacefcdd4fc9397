"""Make any number of images from real photographs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image


def make_images(folder: Path, count: int) -> Path:
    """Write JPEG files of 1024 x 1024 pixels, cut from the photographs in scikit-image."""
    folder.mkdir(parents=True)
    package = find_spec("skimage")
    assert package is not None and package.origin is not None, "scikit-image is needed"
    data = Path(package.origin).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg")
    photographs = [Image.open(data / name).convert("RGB") for name in names]
    rng = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        side = int(min(photograph.size) * rng.uniform(0.6, 1.0))
        left, top = (int(rng.integers(0, size - side + 1)) for size in photograph.size)
        image = photograph.crop((left, top, left + side, top + side)).resize((1024, 1024))
        image.save(folder / f"{number:05d}.jpg", quality=90)
    return folder
