"""Make raw data for the demo from the photographs in scikit-image and scikit-learn.

Each photograph is cut into a grid of tiles. One tile in five, a different one in each row, goes to
`val`, the others to `train`, so no pixel of a `val` tile is in any `train` tile:

    <folder>/train/coffee/1-0.png    # row 1, column 0 of the photograph `coffee`
    <folder>/val/coffee/0-0.png

`python demo/raw_data.py DIR` makes only the folder. It needs Pillow, and no network.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

PHOTOGRAPHS = {  # name → package, file inside it, the package's name on an index
    "astronaut": ("skimage", "data/astronaut.png", "scikit-image"),
    "cat": ("skimage", "data/chelsea.png", "scikit-image"),
    "coffee": ("skimage", "data/coffee.png", "scikit-image"),
    "flower": ("sklearn", "datasets/images/flower.jpg", "scikit-learn"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg", "scikit-image"),
    "motorcycle": ("skimage", "data/motorcycle_left.png", "scikit-image"),
    "pavilion": ("sklearn", "datasets/images/china.jpg", "scikit-learn"),
    "retina": ("skimage", "data/retina.jpg", "scikit-image"),
    "rocket": ("skimage", "data/rocket.jpg", "scikit-image"),
    "tissue": ("skimage", "data/ihc.png", "scikit-image"),
}
COLUMNS, ROWS = 5, 4
RECIPE = ".recipe.json"  # hidden, so that handlers ignore it


class DemoError(Exception):
    """The demo cannot continue. The message says why and what to do."""


class Tile(NamedTuple):
    """A region of a photograph; `box` is left, top, right, bottom in pixels."""

    row: int
    column: int
    box: tuple[int, int, int, int]

    @property
    def split(self) -> str:
        """`val` for one tile of each row, `train` for the others."""
        return "val" if (self.column + 2 * self.row) % COLUMNS == 0 else "train"

    @property
    def name(self) -> str:
        """`<row>-<column>.png`; PNG, so that cutting changes no pixel."""
        return f"{self.row}-{self.column}.png"


def tiles(width: int, height: int) -> Iterator[Tile]:
    """Yield disjoint tiles of equal size; they cover an image except for its last pixels."""
    wide, high = width // COLUMNS, height // ROWS
    for row in range(ROWS):
        for column in range(COLUMNS):
            left, top = column * wide, row * high
            yield Tile(row, column, (left, top, left + wide, top + high))


def make(folder: Path) -> bool:
    """Make the raw data in `folder`; return False if it exists already.

    The folder appears atomically, so that an interrupted run leaves nothing incomplete. Raises
    DemoError if a photograph is not installed, or if the folder contains something else.
    """
    sources = {name: source(name) for name in PHOTOGRAPHS}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if _recipe_of(folder) == recipe():
            return False
        _check_ours(folder)
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)  # from a killed run
        for name, path in sources.items():
            _cut(path, name, unfinished)
        (unfinished / RECIPE).write_text(json.dumps(recipe()))
        shutil.rmtree(folder, ignore_errors=True)  # from another recipe
        unfinished.rename(folder)
    return True


def recipe() -> dict[str, Any]:
    """Return what determines the contents of the folder, as JSON types."""
    return {
        "photographs": {name: list(source[:2]) for name, source in PHOTOGRAPHS.items()},
        "columns": COLUMNS,
        "rows": ROWS,
    }


def source(name: str) -> Path:
    """Return the file of a photograph in the installed package. Raises DemoError."""
    package, inside, distribution = PHOTOGRAPHS[name]
    spec = importlib.util.find_spec(package)  # does not import these heavy packages
    if spec is None or spec.origin is None:
        raise DemoError(
            f"{distribution} is not installed, and the demo takes the photograph {name!r} from it; "
            "run `make`, or `pip install 'dscache[demo]'`"
        )
    path = Path(spec.origin).parent / inside
    if not path.is_file():
        raise DemoError(
            f"the photograph {name!r} is not in the installed {distribution}: no {path}; "
            f"reinstall it with `pip install --force-reinstall {distribution}`"
        )
    return path


def _cut(path: Path, name: str, folder: Path) -> None:
    from PIL import Image

    with Image.open(path) as opened:
        photograph = opened.convert("RGB")
    for tile in tiles(*photograph.size):
        target = folder / tile.split / name / tile.name
        target.parent.mkdir(parents=True, exist_ok=True)
        photograph.crop(tile.box).save(target)


def _recipe_of(folder: Path) -> object:
    try:
        return json.loads((folder / RECIPE).read_bytes())
    except (OSError, ValueError):
        return None


def _check_ours(folder: Path) -> None:
    """Raise DemoError if the folder was not made by the demo: it is not replaced then."""
    if folder.exists() and not (folder / RECIPE).is_file():
        raise DemoError(f"{folder} was not made by the demo; move it away")


def main(arguments: list[str]) -> int:
    """Run `raw_data.py DIR`."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python demo/raw_data.py DIR\n")
        return 2
    folder = Path(arguments[0]).resolve()
    try:
        made = make(folder)
    except DemoError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{'made' if made else 'exists already'}: {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
