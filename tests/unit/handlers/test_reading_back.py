"""What the handlers write, read by TensorFlow and drawn as a contact sheet. Imports TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_handlers import Coco, Composite, Photos, Saliency
from dscache_sdk import DatasetHandler
from dscache_sdk.preview import contact_sheet
from support.examples import assert_same
from support.handlers import Build, Pixels, Save

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*"),
]

TURNED = {
    "rotation": 20,
    "exposure": 1,
    "flip": 0.5,
    "image_size": [96, 128],
    "crop_size": [80, 90],
}


@pytest.fixture
def raw(tmp_path: Path, photographs: dict[str, Pixels], save: Save) -> Path:
    """Every handler's layout, side by side."""
    folder = tmp_path / "raw"
    pictures, annotations = [], []
    for number, (name, photograph) in enumerate(photographs.items()):
        height, width = photograph.shape[:2]
        bright = photograph.mean(axis=2) > 100
        save(folder / "images" / f"{name}.jpg", photograph)
        save(folder / "masks" / f"{name}.png", bright.astype(np.uint8) * 255)
        save(folder / "backgrounds" / f"{name}.jpg", photograph)
        cutout = np.dstack([photograph, bright.astype(np.uint8) * 255])
        save(folder / "foregrounds" / f"{name}.png", cutout)
        save(folder / "train2017" / f"{name}.jpg", photograph)
        pictures.append(
            {"id": number, "file_name": f"{name}.jpg", "height": height, "width": width}
        )
        for category in range(number % 3 + 1):
            left, top = 40 + 20 * category, 50 + 10 * category
            outline = [left, top, left + 60, top, left + 30, top + 60]
            annotations.append(
                {
                    "image_id": number,
                    "category_id": category,
                    "bbox": [left, top, 60, 60],
                    "segmentation": [outline],
                }
            )
    (folder / "annotations").mkdir()
    categories = [{"id": number, "name": name} for number, name in enumerate("abc")]
    content = {"images": pictures, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return folder


HANDLERS = [
    (Photos, {**TURNED, "input_attributes": ["id", "image"]}),
    (Saliency, {**TURNED, "input_attributes": ["id", "image", "mask"]}),
    (
        Coco,
        {**TURNED, "input_attributes": ["boxes", "id", "image", "is_crowd", "labels", "mask"]},
    ),
    (
        Composite,
        {"image_size": [80, 90], "input_attributes": ["alpha", "background", "id", "image"]},
    ),
]


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize(("kind", "config"), HANDLERS, ids=lambda value: getattr(value, "name", ""))
def test_tensorflow_reads_what_we_read(
    raw: Path,
    tmp_path: Path,
    build: Build,
    kind: type[DatasetHandler],
    config: dict[str, Any],
    encoding: str,
) -> None:
    handler = kind({**config, "encoding": encoding, "batch_size": 100}, str(raw))
    ours = build(handler, tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    theirs = list(handler.tf_records_mapper(files))
    assert len(ours) == len(theirs) >= 6
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one, other, jpeg=16 if encoding == "jpeg" else 0)


def test_batches_of_coco_are_ragged(raw: Path, tmp_path: Path, build: Build) -> None:
    from dscache_sdk.reading import tfdata

    handler = Coco({**TURNED, "input_attributes": ["boxes", "image", "labels"]}, str(raw))
    ours = build(handler, tmp_path / "out")
    (batch,) = tfdata(sorted((tmp_path / "out").iterdir()), handler.features, batch_size=100)
    assert batch["image"].shape == (len(ours), 80, 90, 3)
    assert [len(labels) for labels in batch["labels"]] == [len(one["labels"]) for one in ours]
    assert batch["boxes"].shape.as_list() == [len(ours), None, 4]


@pytest.mark.parametrize(("kind", "config"), HANDLERS, ids=lambda value: getattr(value, "name", ""))
def test_the_contact_sheet_shows_masks_and_boxes(
    raw: Path, tmp_path: Path, build: Build, kind: type[DatasetHandler], config: dict[str, Any]
) -> None:
    handler = kind(config, str(raw))
    examples = build(handler, tmp_path / "out")
    sheet = contact_sheet(examples, handler.features)
    pixels = np.asarray(sheet).reshape(-1, 3)
    if kind is Coco:
        assert (pixels == (255, 64, 0)).all(axis=1).sum() > 500  # boxes
        colours = {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}
        assert {(255, 76, 76), (76, 134, 255)} & colours  # things of the mask
    if kind in (Saliency, Composite):
        white = (pixels == 255).all(axis=1).sum()
        assert white > 0.02 * len(pixels)
