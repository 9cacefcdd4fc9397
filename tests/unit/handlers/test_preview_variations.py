"""A look at a few variations costs a few variations."""

from __future__ import annotations

import shutil
from pathlib import Path

import sklearn.datasets

from dataset_handlers.photos import Photos
from dscache_sdk.records import count_records, read_records


def test_only_the_first_variations_are_written(tmp_path: Path) -> None:
    picture = Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"
    (tmp_path / "raw").mkdir()
    shutil.copy(picture, tmp_path / "raw")
    config = {"image_size": [64, 64], "crop_size": [32, 32], "variations_per_sample": 50}
    handler = Photos(config, str(tmp_path / "raw"))
    plan = handler.plan()
    few, whole = tmp_path / "few", tmp_path / "whole"
    assert handler.write_shard(plan, 0, few, variations=3).records == 3
    assert handler.write_shard(plan, 0, whole).records == 50
    assert handler.write_shard(plan, 0, tmp_path / "more", variations=99).records == 50
    assert count_records(few) == 3
    assert list(read_records(few)) == list(read_records(whole))[:3]
