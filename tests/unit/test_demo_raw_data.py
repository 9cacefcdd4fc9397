"""The demo's raw data: disjoint regions of real photographs, made once and in one step."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SOURCE = Path(__file__).resolve().parents[2] / "demo" / "raw_data.py"


@pytest.fixture
def raw_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, of which only two photographs are used: small and quick."""
    spec = importlib.util.spec_from_file_location("raw_data", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    some = {name: module.PHOTOGRAPHS[name] for name in ("cat", "flower")}
    monkeypatch.setattr(module, "PHOTOGRAPHS", some)
    return module


def test_every_photograph_is_installed() -> None:
    spec = importlib.util.spec_from_file_location("raw_data", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in module.PHOTOGRAPHS:
        with Image.open(module.source(name)) as picture:
            assert min(picture.size) >= 300
    assert len({module.source(name) for name in module.PHOTOGRAPHS}) == 10


def test_no_pixel_is_in_two_tiles(raw_data: ModuleType) -> None:
    for width, height in ((451, 300), (640, 427), (1411, 1411)):
        shown = np.zeros((height, width), int)
        for tile in raw_data.tiles(width, height):
            left, top, right, bottom = tile.box
            shown[top:bottom, left:right] += 1
        assert shown.max() == 1
        assert shown.mean() > 0.98


def test_each_row_and_nearly_each_column_gives_one_tile_to_val(raw_data: ModuleType) -> None:
    val = [tile for tile in raw_data.tiles(500, 400) if tile.split == "val"]
    assert Counter(tile.row for tile in val) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert len({tile.column for tile in val}) == 4


def test_tiles_are_the_photograph(raw_data: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    assert raw_data.make(folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    assert len(files) == 2 * raw_data.ROWS * raw_data.COLUMNS
    assert files[0].startswith("train/cat/")
    with Image.open(raw_data.source("cat")) as whole, Image.open(folder / "val/cat/0-0.png") as cut:
        size = (whole.width // raw_data.COLUMNS, whole.height // raw_data.ROWS)
        assert cut.size == size
        assert np.array_equal(np.asarray(whole)[: size[1], : size[0]], np.asarray(cut))


def test_it_is_made_once(raw_data: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    raw_data.make(folder)
    picture = folder / "val" / "cat" / "0-0.png"
    before = picture.stat().st_mtime_ns
    assert not raw_data.make(folder)
    assert picture.stat().st_mtime_ns == before


def test_what_a_killed_run_left_is_replaced(raw_data: ModuleType, tmp_path: Path) -> None:
    stray = tmp_path / ".photos.unfinished" / "train" / "dog" / "0-0.png"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"half")
    raw_data.make(tmp_path / "photos")
    assert not (tmp_path / "photos" / "train" / "dog").exists()
    assert not (tmp_path / ".photos.unfinished").exists()


def test_another_recipe_replaces_it(raw_data: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    raw_data.make(folder)
    old = {**json.loads((folder / raw_data.RECIPE).read_bytes()), "rows": 7}
    (folder / raw_data.RECIPE).write_text(json.dumps(old))
    (folder / "val" / "old.png").write_bytes(b"")
    assert raw_data.make(folder)
    assert not (folder / "val" / "old.png").exists()


def test_somebody_elses_folder_is_left_alone(raw_data: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"")
    with pytest.raises(raw_data.DemoError, match="was not made by the demo; move it away"):
        raw_data.make(tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.jpg").exists()


def test_a_missing_package_and_a_missing_picture(
    raw_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"cat": ("no_such_package", "cat.png", "no-such-package")}
    monkeypatch.setattr(raw_data, "PHOTOGRAPHS", missing)
    with pytest.raises(raw_data.DemoError, match="no-such-package is not installed"):
        raw_data.make(tmp_path / "photos")
    monkeypatch.setattr(raw_data, "PHOTOGRAPHS", {"cat": ("json", "cat.png", "scikit-image")})
    with pytest.raises(raw_data.DemoError, match=r"no .*cat\.png; reinstall it"):
        raw_data.make(tmp_path / "photos")
    assert not (tmp_path / "photos").exists()
