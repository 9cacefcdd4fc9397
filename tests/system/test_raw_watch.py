"""Raw data that change: people are told which datasets were built from others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets

from dscache.config import Config
from support.running import Builder, dscache, wait_until, write_spec

NewBuilder = Callable[..., Builder]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A real photograph."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg", folder)
    return folder


def test_ls_says_that_the_raw_data_changed(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path, pictures: Path
) -> None:
    source = {"handler": "photos", "raw": str(pictures), "source": "dataset-handlers=={version}"}
    new_builder(datasets={"photos": source}, reconcile_s=1.0).start()
    cfg = write_spec(tmp_path / "c.json", "photos", image_size=[64, 64], crop_size=[32, 32])
    assert dscache(client_config, "get", str(cfg)).code == 0

    def listed() -> dict[str, Any]:
        document = json.loads(dscache(client_config, "ls", "--json").out)
        (dataset,) = document["datasets"]
        assert isinstance(dataset, dict)
        return dataset

    wait_until(lambda: listed()["raw_changed"] is False, "the revision it was built from is known")
    shutil.copy(pictures / "china.jpg", pictures / "another.jpg")
    wait_until(lambda: listed()["raw_changed"] is True, "the change is noticed")
    assert "raw data has changed" in dscache(client_config, "ls").out
