"""The coco handler on pictures in which the annotated things can be seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dataset_handlers import Coco
from dscache_sdk import OptionsError, RawDataError, features_to_json
from support.cocopictures import COLOURS, Inside, things, write_coco, write_instances
from support.handlers import Build, Example, Pixels, Save, class_names

# Of the tests' own use of pycocotools with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NAMES = ["person", "dog", "bottle"]  # by id
EVERYTHING = ["boxes", "id", "image", "is_crowd", "labels", "mask"]
ALL = {"encoding": "png", "input_attributes": EVERYTHING, "batch_size": 1000}


@pytest.fixture
def raw(tmp_path: Path, photographs: dict[str, Pixels], save: Save) -> Path:
    """Five pictures to train with, one of them empty, and one for val."""
    return write_coco(tmp_path / "raw", photographs, save)


def seen(one: Example, category: int) -> Inside:
    """Where the colour of a category is seen in an example's picture."""
    colour = np.array(COLOURS[category])
    inside: Inside = (np.abs(one["image"].astype(int) - colour) < 100).all(axis=2)
    return inside


def bounds(inside: Inside) -> npt.NDArray[np.float64]:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], float)


def beside(inside: Inside, black: Inside) -> bool:
    """Whether a thing ends where the picture does."""
    grown = inside.copy()
    for _ in range(3):
        grown[1:] |= grown[:-1]
        grown[:-1] |= grown[1:]
        grown[:, 1:] |= grown[:, :-1]
        grown[:, :-1] |= grown[:, 1:]
    return bool((grown & black).sum() > 10)


def check(one: Example, tolerance: int = 3) -> None:
    """Boxes, labels and the mask of an example say what its picture shows.

    A thing that is cut off has the cut-off box of the whole, which may be larger than what is seen.
    """
    height, width = one["image"].shape[:2]
    labels = one["labels"].tolist()
    assert len(labels) == len(one["boxes"]) == len(one["is_crowd"])
    for number, category in enumerate((1, 18, 44)):
        inside = seen(one, category)
        if number not in labels:
            assert inside.sum() < 40
            continue
        painted = one["mask"][:, :, 0] == number + 1
        assert (painted != inside).mean() < 0.01
        if inside.sum() < 40:
            continue
        box = one["boxes"][labels.index(number)] * (height, width, height, width)
        difference = (bounds(inside) - box) * (1, 1, -1, -1)
        assert difference.min() >= -tolerance
        at_edge = inside[0].any() or inside[-1].any() or inside[:, [0, -1]].any()
        black = one["image"].max(axis=2) == 0
        if not at_edge and not beside(inside, black):
            assert difference.max() <= tolerance
        assert one["is_crowd"][labels.index(number)] == (category == 44)


def test_the_layout_of_coco(raw: Path, tmp_path: Path, build: Build) -> None:
    handler = Coco({**ALL, "crowd": True}, str(raw))
    plan = handler.plan()
    assert [(shard.split, shard.examples) for shard in plan.shards] == [("train", 4), ("val", 1)]
    assert class_names(handler.features["labels"]) == NAMES
    assert '[\\"person\\", \\"dog\\", \\"bottle\\"]' in features_to_json(handler.features)
    for one in build(handler, tmp_path / "out"):
        assert one["id"].split("/")[0] in ("train2017", "val2017")
        assert one["image"].shape == (640, 640, 3)
        assert sorted(one["labels"].tolist()) == [0, 1, 2]
        assert one["boxes"].dtype == np.float32
        check(one, tolerance=4)  # enlarged two to four times


def test_boxes_are_those_of_the_file(
    raw: Path, tmp_path: Path, build: Build, photographs: dict[str, Pixels]
) -> None:
    (one,) = [
        one
        for one in build(Coco({**ALL, "image_size": None}, str(raw)), tmp_path / "out")
        if one["id"].endswith("china.png")
    ]
    _, annotations = things(photographs["china"])
    annotations = [annotation for annotation in annotations if not annotation["iscrowd"]]
    height, width = photographs["china"].shape[:2]
    for box, annotation in zip(one["boxes"], annotations, strict=True):
        x, y, across, down = annotation["bbox"]
        expected = [y / height, x / width, (y + down) / height, (x + across) / width]
        np.testing.assert_allclose(box, expected, atol=1e-6)


VARIED = {"crop_size": [120, 130], "flip": 0.5, "variations_per_sample": 8}


@pytest.mark.parametrize(
    "config",
    [
        {"image_size": [200, 210], "resize": "stretch"},
        {"image_size": [200, 150], "resize": "cover"},
        {"image_size": [150, 260], "resize": "contain"},
        {"image_size": None},
        {"image_size": [200, 210], "resize": "stretch", **VARIED},
        {"image_size": [200, 210], "resize": "contain", "rotation": 90, **VARIED},
        {"image_size": [200, 150], "resize": "cover", "rotation": 45, **VARIED},
        {"image_size": [120, 130], "resize": "stretch", "rotation": 180, **VARIED},
        {"image_size": None, "rotation": 30, **VARIED},
    ],
    ids=str,
)
def test_boxes_and_masks_follow_the_picture(
    raw: Path, tmp_path: Path, build: Build, config: dict[str, Any]
) -> None:
    examples = build(Coco({**ALL, "crowd": True, **config}, str(raw)), tmp_path / "out")
    assert len(examples) >= 5 * config.get("variations_per_sample", 1) - 5
    for one in examples:
        check(one)


def test_turned_boxes_are_tight(raw: Path, tmp_path: Path, build: Build) -> None:
    config = {"image_size": [200, 210], "rotation": 20, "resize": "contain"}
    config |= {"crowd": True, "variations_per_sample": 4}
    differences = []
    for one in build(Coco({**ALL, **config}, str(raw)), tmp_path / "out"):
        for label, box in zip(one["labels"], one["boxes"], strict=True):
            inside = seen(one, (1, 18, 44)[label])
            ends = bounds(inside) / (200, 210, 200, 210)
            if ends[0] > 0.1 and ends[1] > 0.1 and ends[2] < 0.9 and ends[3] < 0.9:
                differences.append(np.abs(ends - box).max())
    assert len(differences) > 20
    assert max(differences) < 0.02


def test_without_outlines_turned_boxes_hold_their_things(
    raw: Path, tmp_path: Path, build: Build
) -> None:
    for path in (raw / "annotations").iterdir():
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        path.write_text(json.dumps(content))
    config = {"image_size": [200, 210], "rotation": 30, "crowd": True}
    for one in build(Coco({**ALL, **config}, str(raw)), tmp_path / "out"):
        for number, category in enumerate((1, 18, 44)):
            top, left, bottom, right = one["boxes"][one["labels"].tolist().index(number)]
            box = bounds(seen(one, category)) / (200, 210, 200, 210)
            assert (box[:2] >= np.array([top, left]) - 0.01).all()
            assert (box[2:] <= np.array([bottom, right]) + 0.01).all()


def test_crowds_are_left_out_unless_asked_for(raw: Path, tmp_path: Path, build: Build) -> None:
    for one in build(Coco(ALL, str(raw)), tmp_path / "out"):
        assert sorted(one["labels"].tolist()) == [0, 1]
        assert one["is_crowd"].tolist() == [0, 0]
        assert one["mask"].max() == 2


def test_instances_are_numbered_as_their_boxes(raw: Path, tmp_path: Path, build: Build) -> None:
    config = {"mask": "instances", "crowd": True, "image_size": None}
    for one in build(Coco({**ALL, **config}, str(raw)), tmp_path / "out"):
        for number, label in enumerate(one["labels"].tolist()):
            inside = seen(one, (1, 18, 44)[label])
            assert ((one["mask"][:, :, 0] == number + 1) != inside).mean() < 0.001


def test_smaller_things_are_painted_over_larger_ones(
    tmp_path: Path, photographs: dict[str, Pixels], save: Save, build: Build
) -> None:
    height, width = photographs["china"].shape[:2]
    save(tmp_path / "train2017" / "china.png", photographs["china"])
    boxes = [[50, 50, 20, 20], [0, 0, 200, 150], [55, 55, 5, 5]]
    annotations = [
        {
            "image_id": 1,
            "category_id": 18,
            "bbox": box,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for box in boxes
        for x, y, w, h in [box]
    ]
    pictures = [{"id": 1, "file_name": "china.png", "height": height, "width": width}]
    path = tmp_path / "annotations" / "instances_train2017.json"
    write_instances(path, pictures, annotations)
    config = {**ALL, "image_size": None, "mask": "instances"}
    (one,) = build(Coco(config, str(tmp_path)), tmp_path / "out")
    assert [one["mask"][place][0] for place in ((10, 10), (52, 52), (57, 57))] == [2, 1, 3]


def test_categories(raw: Path, tmp_path: Path, build: Build) -> None:
    handler = Coco({**ALL, "categories": ["dog", "bottle", "dog"]}, str(raw))
    assert class_names(handler.features["labels"]) == ["dog", "bottle"]
    for one in build(handler, tmp_path / "out"):
        assert one["labels"].tolist() == [0]  # the bottles are a crowd
        assert ((one["mask"][:, :, 0] == 1) != seen(one, 18)).mean() < 0.01
    one = Coco.resolve({"categories": ["dog", "bottle"]})
    assert one == Coco.resolve({"categories": ["bottle", "dog", "dog"]})
    with pytest.raises(OptionsError, match=r"no category 'dgo'; did you mean 'dog'\? Categories:"):
        _ = Coco({"categories": ["dgo"]}, str(raw)).features


def test_min_area(raw: Path, photographs: dict[str, Pixels]) -> None:
    _, annotations = things(photographs["china"])
    limit = annotations[0]["area"] + 1
    kept = {
        sample.id: len(sample.data["objects"])
        for sample in Coco({"min_area": limit}, str(raw)).samples()
    }
    expected = sum(one["area"] >= limit for one in annotations if not one["iscrowd"])
    assert kept.get("train2017/china.png", 0) == expected < 2
    with pytest.raises(RawDataError, match="the options exclude everything"):
        Coco({"min_area": 1e9}, str(raw)).plan()


def test_pictures_with_nothing_in_them(raw: Path, tmp_path: Path, build: Build) -> None:
    assert len(Coco({}, str(raw)).samples()) == 5
    handler = Coco({**ALL, "keep_empty": True, "categories": ["dog"], "min_area": 1e9}, str(raw))
    examples = build(handler, tmp_path / "all")
    assert len(examples) == 6
    for one in examples:
        assert one["boxes"].shape == (0, 4)
        assert one["labels"].shape == one["is_crowd"].shape == (0,)
        assert one["mask"].max() == 0


def test_things_of_which_little_is_left_are_left_out(
    raw: Path, tmp_path: Path, build: Build
) -> None:
    config = {**ALL, "image_size": [200, 200], "crop_size": [60, 60], "variations_per_sample": 20}
    config["random_crop_centered"] = False
    every = build(Coco({**config, "keep_empty": True}, str(raw)), tmp_path / "every")
    assert len(every) == 6 * 20
    some = build(Coco(config, str(raw)), tmp_path / "some")
    assert len(some) == sum(len(one["boxes"]) > 0 for one in every) < 5 * 20
    most = build(Coco({**config, "min_visible": 0.5}, str(raw)), tmp_path / "most")
    assert 0 < sum(len(one["boxes"]) for one in most) < sum(len(one["boxes"]) for one in some)


def test_resolution_keeps_the_boxes(raw: Path, tmp_path: Path, build: Build) -> None:
    config = {**ALL, "rotation": 25, "flip": 0.5, "variations_per_sample": 5, "resize": "stretch"}
    small, large = (
        build(
            Coco({**config, "image_size": [n, n], "crop_size": [n // 2] * 2}, str(raw)),
            tmp_path / str(n),
        )
        for n in (160, 320)
    )
    for one, other in zip(small, large, strict=True):
        assert one["labels"].tolist() == other["labels"].tolist()
        assert np.abs(one["boxes"] - other["boxes"]).max(initial=0) < 0.02


def test_two_builds_are_equal(raw: Path, tmp_path: Path, build: Build) -> None:
    config = {**ALL, "rotation": 25, "exposure": 1, "crowd": True, "variations_per_sample": 3}
    for name in ("one", "two"):
        build(Coco({**config, "image_size": [200, 200]}, str(raw)), tmp_path / name)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
