"""The article's example config, on real photographs, read by TensorFlow and by TFDS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import skimage
import sklearn.datasets

from dscache import Dataset
from dscache.config import Config
from support.running import Builder, dscache

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

SHORT_EXAMPLE_CONFIG = {
    "input_attributes": ["image"],
    "batch_size": 100,
    "image_size": [1024, 1024],
    "variations_per_sample": 1,
    "crop_size": [800, 800],
    "random_crop_centered": True,
}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Five real photographs, one folder each."""
    scikit_image = Path(skimage.__file__).parent / "data"
    scikit_learn = Path(sklearn.datasets.__file__).parent / "images"
    for path in (
        *(scikit_image / name for name in ("astronaut.png", "chelsea.png", "coffee.png")),
        *(scikit_learn / name for name in ("china.jpg", "flower.jpg")),
    ):
        (tmp_path / "photographs" / path.stem).mkdir(parents=True)
        shutil.copy(path, tmp_path / "photographs" / path.stem)
    return tmp_path / "photographs"


def test_the_articles_example(
    new_builder: Callable[..., Builder],
    client_config: Config,
    tmp_path: Path,
    photographs: Path,
    checkout_version: str,
) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    source = "dataset-handlers=={version}"
    datasets = {"photos": {"handler": "photos", "raw": str(photographs), "source": source}}
    new_builder(datasets=datasets).start()
    cfg = tmp_path / "cfg.json"
    spec = {
        "dataset_name": "photos",
        "handler_version": checkout_version,
        "dataset_config": SHORT_EXAMPLE_CONFIG,
    }
    cfg.write_text(json.dumps(spec))
    ran = dscache(client_config, "get", str(cfg))
    assert ran.code == 0, ran.err
    folder = Path(ran.out.strip())

    found = Dataset(folder)
    splits = found.info["splits"]
    assert sum(splits.values()) == 5
    for split, count in splits.items():
        records = list(tf.data.TFRecordDataset(found.files(split)))
        assert len(records) == count
        for record in records:
            example = tf.train.Example.FromString(record.numpy())
            (encoded,) = example.features.feature["image"].bytes_list.value
            assert tf.io.decode_jpeg(encoded).shape == (800, 800, 3)
        batches = list(found.tfdata(split, batch_size=2))
        assert sum(len(batch["image"]) for batch in batches) == count

    builder = tfds.builder_from_directory(folder)
    opened = {name: info.num_examples for name, info in builder.info.splits.items()}
    assert opened == splits
    for split, count in splits.items():
        shapes = [example["image"].shape for example in builder.as_dataset(split=split)]
        assert shapes == [(800, 800, 3)] * count


@pytest.fixture
def checkout_version() -> str:
    """Version of the dataset-handlers of this checkout."""
    from importlib.metadata import version

    return version("dataset-handlers")
