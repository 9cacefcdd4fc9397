"""docs/handlers.md says what is there, and its example runs."""

import re
import shutil
from pathlib import Path

import pytest
import sklearn

from dataset_handlers import Photos

PAGE = (Path(__file__).parents[3] / "docs" / "handlers.md").read_text("utf-8")


@pytest.mark.parametrize("option", Photos.config_options())
def test_every_option_of_photos_is_on_the_page(option):
    assert re.search(rf"^\| .*`{option}`", PAGE, re.MULTILINE)


def test_the_example_runs(tmp_path, monkeypatch):
    source = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"
    (tmp_path / "raw" / "pictures").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    shutil.copy(source, tmp_path / "raw" / "pictures")
    monkeypatch.chdir(tmp_path)
    write, attempt, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope = {}
    exec(write + attempt, scope)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert scope["examples"][0]["image"].shape == (200, 200, 3)
