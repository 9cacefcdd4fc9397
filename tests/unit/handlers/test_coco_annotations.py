"""COCO's annotation files: where they lie, what they say, how they are damaged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_handlers import Coco
from dataset_handlers.coco_index import AnnotatedImage, AnnotatedObject
from dataset_handlers.coco_shapes import shapes_of
from dscache_sdk import OptionsError, RawDataError, SampleError
from support.cocopictures import things, write_coco, write_instances
from support.handlers import Build, Pixels, Save, class_names

# Of the tests' own use of pycocotools with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EVERYTHING = ["boxes", "id", "image", "is_crowd", "labels", "mask"]
ALL = {"encoding": "png", "input_attributes": EVERYTHING, "batch_size": 1000}


@pytest.fixture
def raw(tmp_path: Path, photographs: dict[str, Pixels], save: Save) -> Path:
    """Five pictures to train with, one of them empty, and one for val."""
    return write_coco(tmp_path / "raw", photographs, save)


def test_pictures_beside_their_annotations(
    tmp_path: Path, photographs: dict[str, Pixels], save: Save, build: Build
) -> None:
    for folder in ("train", "valid"):
        picture, annotations = things(photographs["china"])
        save(tmp_path / folder / "china.png", picture)
        described = {"id": 0, "file_name": "china.png", "height": 200, "width": 300}
        described.update(zip(("height", "width"), picture.shape[:2], strict=True))
        every = [{**one, "image_id": 0} for one in annotations]
        write_instances(tmp_path / folder / "_annotations.coco.json", [described], every)
    plan = Coco({}, str(tmp_path)).plan()
    assert {(sample.split, sample.id) for sample in plan.samples} == {
        ("train", "train/china.png"),
        ("val", "valid/china.png"),
    }


def test_pictures_in_a_folder_images(raw: Path) -> None:
    (raw / "images").mkdir()
    (raw / "train2017").rename(raw / "images" / "train2017")
    ids = {sample.id for sample in Coco({}, str(raw)).samples()}
    assert "images/train2017/china.png" in ids
    assert "val2017/rocket.png" in ids


def test_annotations_without_pictures_are_left_out(raw: Path) -> None:
    (raw / "train2017").rename(raw / "elsewhere")
    assert {sample.split for sample in Coco({}, str(raw)).samples()} == {"val"}
    (raw / "val2017").rename(raw / "elsewhere" / "too")
    with pytest.raises(RawDataError, match=r"images of annotations/instances_train2017\.json"):
        Coco({}, str(raw)).samples()


def change(raw: Path, **members: Callable[[list[Any]], object]) -> None:
    path = raw / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for name, function in members.items():
        function(content[name])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("member", "function", "message"),
    [
        ("images", lambda images: images.append(images[0]), "image 'train2017/china.png' twice"),
        (
            "images",
            lambda images: images[0].update(file_name="x.png"),
            "names 5 images, of which 1 do not exist",
        ),
        ("images", lambda images: images[0].pop("width"), "is not a COCO instances file.*width"),
        (
            "images",
            lambda images: images.pop(0),
            "annotation of image 100 and category 1",
        ),
        (
            "annotations",
            lambda items: items[0].update(bbox=[1, 2, 3]),
            "is not a COCO instances file",
        ),
        (
            "categories",
            lambda items: items.clear(),
            "annotation of image 100 and category 1",
        ),
        (
            "annotations",
            lambda items: items[0].update(bbox=[1, 2, 3]),
            "is not a COCO instances file",
        ),
        ("categories", lambda items: items[0].update(name="cat"), "category 18 is 'dog' in"),
    ],
)
def test_damaged_annotations_are_named(
    raw: Path, member: str, function: Callable[[list[Any]], object], message: str
) -> None:
    change(raw, **{member: function})
    with pytest.raises(RawDataError, match=message) as caught:
        Coco({}, str(raw)).plan()
    assert "instances_" in str(caught.value)


def test_what_is_no_json_is_named(raw: Path) -> None:
    (raw / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(RawDataError, match=r"'annotations/instances_val2017\.json' is no"):
        Coco({}, str(raw)).plan()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            {"size": [10, 10], "counts": [100]},
            r"run lengths are not for an image of 200 x 300 .*\[10, 10\]",
        ),
        ({"size": [200, 300], "counts": [5, 5]}, "cover 10 pixels, but the image has 60000"),
        ([["a", 1, 2, 3, 4, 5]], "not a list of polygons"),
        (7, "run lengths are not for"),
    ],
)
def test_damaged_outlines_are_bad_samples(
    raw: Path, tmp_path: Path, segmentation: object, message: str
) -> None:
    change(raw, annotations=lambda items: items[0].update(segmentation=segmentation))
    handler = Coco({**ALL, "batch_size": 99}, str(raw))
    with pytest.raises(SampleError, match=message) as caught:
        handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord")
    assert caught.value.sample_id == "train2017/china.png"


def test_a_picture_of_another_size_is_a_bad_sample(
    raw: Path, tmp_path: Path, photographs: dict[str, Pixels], save: Save
) -> None:
    save(raw / "train2017" / "china.png", photographs["flower"])
    handler = Coco({"batch_size": 99}, str(raw))
    with pytest.raises(SampleError, match="are for 200 x 300") as caught:
        handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord")
    assert caught.value.sample_id == "train2017/china.png"


def test_annotations_and_pictures_decide_the_digest(raw: Path) -> None:
    def digest() -> str:
        return Coco({}, str(raw)).plan().digest

    found = [digest()]
    for name in ("annotations/instances_val2017.json", "train2017/china.png"):
        status = (raw / name).stat()
        os.utime(raw / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        found.append(digest())
    assert len(set(found)) == 3


def test_outlines_are_carried_only_where_they_are_needed(raw: Path) -> None:
    def outlines(**config: Any) -> list[str]:
        samples = Coco(config, str(raw)).samples()
        return [thing[-1] for sample in samples for thing in sample.data["objects"]]

    assert set(outlines()) == {""}
    for needed in (outlines(rotation=1), outlines(input_attributes=["mask"])):
        assert len(needed) == len(outlines()) and "" not in needed


def test_samples_are_json(raw: Path) -> None:
    import msgspec

    from dscache_sdk import Plan

    plan = Coco({**ALL, "rotation": 3}, str(raw)).plan()
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_too_many_things_for_one_mask(
    tmp_path: Path, photographs: dict[str, Pixels], save: Save
) -> None:
    save(tmp_path / "train2017" / "china.png", photographs["china"])
    height, width = photographs["china"].shape[:2]
    pictures = [{"id": 1, "file_name": "china.png", "height": height, "width": width}]
    annotation = {"image_id": 1, "category_id": 18, "bbox": [1, 1, 5, 5], "segmentation": []}
    path = tmp_path / "annotations" / "instances_train2017.json"
    write_instances(path, pictures, [annotation] * 256)
    handler = Coco({**ALL, "mask": "instances"}, str(tmp_path))
    with pytest.raises(SampleError, match="256 objects do not fit a mask of 8 bits"):
        handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord")


def test_too_many_classes_for_one_mask(raw: Path) -> None:
    more = [{"id": number, "name": f"thing {number}"} for number in range(1000, 1300)]
    change(raw, categories=lambda items: items.extend(more))
    with pytest.raises(OptionsError, match="303 classes do not fit"):
        _ = Coco(ALL, str(raw)).features
    handler = Coco({**ALL, "mask": "instances"}, str(raw))
    assert class_names(handler.features["labels"])[3] == "thing 1000"


def damaged(raw: Path, change: Callable[[bytes], bytes]) -> Coco:
    path = raw / "annotations" / "instances_train2017.json"
    path.write_bytes(change(path.read_bytes()))
    return Coco(ALL, str(raw))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"file_name": "china', b'"file_name": "\xffchina'),
        (b'"name": "dog"', b'"name": "\xff"'),
        (b'"segmentation": [[', b'"segmentation": [["\xff", '),
        (b'"info": {}', b'"info": ' + b"[" * 100_000),
        (b'"bbox": [', b'"bbox": [1e308, 1e308, 1e308, 1e308], "x": ['),
        (b'"height": 200', b'"height": 1' + b"0" * 5000),
    ],
    ids=range(6),
)
def test_annotation_files_that_cannot_be_read(raw: Path, before: bytes, after: bytes) -> None:
    with pytest.raises(RawDataError, match=r"'annotations/instances_train2017\.json'"):
        damaged(raw, lambda content: content.replace(before, after)).samples()


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ([["1", "2", "3", "4", "5", "6"]], "not a list of polygons"),
        ([[1, 2, 3, 4, 5, 10**400]], "not JSON|not a list of polygons"),
        ([[1, 2, 3, 4, 5, None]], "not a list of polygons"),
        ([[1, 2, 3, 4, 5]] * 2 + [[1, 2, 3, 4, 5, 6, 7]], "not a list of polygons"),
        ([[0, 0, 1e300, 0, 1, 1]], "far outside"),
        ([[0, 0, 200, 200] * 5000], "longer than any outline"),
        ({"size": [200, 300], "counts": ["a", {}]}, "a run of 'a' pixels"),
        ({"size": [200, 300], "counts": [1e300]}, "a run of 1e"),
        ({"size": [200, 300], "counts": {"a": 1}}, "not for an image"),
        ("text", "not for an image"),
        (7, "not for an image"),
    ],
    ids=range(11),
)
def test_outlines_that_are_none(outline: object, said: str) -> None:
    annotated = AnnotatedObject(0, False, [1.0, 2.0, 3.0, 4.0], 12.0, json.dumps(outline))
    with pytest.raises(ValueError, match=said):
        shapes_of(AnnotatedImage(200, 300, [annotated]), None, "contain")


def test_many_pictures_of_which_one_is_named_twice(raw: Path) -> None:
    entries = [{"id": n, "file_name": f"{n}.png", "height": 1, "width": 1} for n in range(30_000)]
    entries.append({**entries[-1], "id": -1})
    write_instances(raw / "annotations" / "instances_train2017.json", entries, [])
    started = time.process_time()
    with pytest.raises(RawDataError, match=r"names the image 'train2017/29999\.png' twice"):
        Coco({}, str(raw)).samples()
    assert time.process_time() - started < 5
