"""The coco handler on pictures in which the annotated things can be seen."""

import json
import os

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dataset_handlers import Coco
from dscache_sdk import OptionsError, RawDataError, SampleError, features_to_json

# Of the tests' own use of pycocotools with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 44, "name": "bottle"}]
NAMES = ["person", "dog", "bottle"]  # by id
COLOURS = {1: (255, 0, 0), 18: (0, 255, 0), 44: (0, 0, 255)}
EVERYTHING = ["boxes", "id", "image", "is_crowd", "labels", "mask"]
ALL = {"encoding": "png", "input_attributes": EVERYTHING, "batch_size": 1000}


def polygon(rows, columns, height, width):
    """A triangle and its pixels."""
    (top, bottom), (left, right) = rows, columns
    outline = [[left, bottom, right, bottom, (left + right) / 2, top]]
    runs = coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
    return outline, coco_mask.decode(runs).astype(bool)


def run_lengths(inside, packed):
    """An ellipse's pixels as COCO writes them: numbers for crowds, packed into text for others."""
    height, width = inside.shape
    if packed:
        runs = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        return {"size": [height, width], "counts": runs["counts"].decode()}
    flat = inside.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}


def ellipse(rows, columns, height, width):
    y, x = np.mgrid[:height, :width] + 0.5
    middle_y, middle_x = np.mean(rows), np.mean(columns)
    far = ((y - middle_y) / (rows[1] - middle_y)) ** 2
    return far + ((x - middle_x) / (columns[1] - middle_x)) ** 2 < 1


def things(photograph):
    """A darkened photograph with a person (polygon), a dog and a crowd of bottles (run lengths)."""
    height, width = photograph.shape[:2]
    picture = photograph // 8
    places = {
        1: ((0.1 * height, 0.6 * height), (0.05 * width, 0.4 * width)),
        18: ((0.2 * height, 0.5 * height), (0.5 * width, 0.9 * width)),
        44: ((0.65 * height, 0.95 * height), (0.3 * width, 0.8 * width)),
    }
    annotations = []
    for category, place in places.items():
        place = tuple(tuple(float(round(end)) for end in ends) for ends in place)
        if category == 1:
            outline, inside = polygon(*place, height, width)
        else:
            inside = ellipse(*place, height, width)
            outline = run_lengths(inside, packed=category == 18)
        picture[inside] = COLOURS[category]
        (top, bottom), (left, right) = place
        annotations.append(
            {
                "category_id": category,
                "bbox": [left, top, right - left, bottom - top],
                "area": float(inside.sum()),
                "iscrowd": int(category == 44),
                "segmentation": outline,
            }
        )
    return picture, annotations


def write_instances(path, pictures, annotations, categories=CATEGORIES):
    numbered = [{**one, "id": number} for number, one in enumerate(annotations)]
    content = {"info": {}, "images": pictures, "annotations": numbered, "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def raw(tmp_path, photographs, save):
    """COCO's layout: five pictures to train with, one of them empty, and one for val."""
    folder = tmp_path / "raw"
    parts = {"train2017": [], "val2017": []}
    for number, (name, photograph) in enumerate(photographs.items()):
        picture, annotations = things(photograph)
        part = "val2017" if name == "rocket" else "train2017"
        if name == "coffee":
            picture, annotations = photograph // 8, []
        save(folder / part / f"{name}.png", picture)
        described = {
            "id": 100 + number,
            "file_name": f"{name}.png",
            "height": picture.shape[0],
            "width": picture.shape[1],
            "license": 3,
        }
        parts[part].append((described, [{**one, "image_id": 100 + number} for one in annotations]))
    for part, content in parts.items():
        every = [one for _, annotations in content for one in annotations]
        path = folder / "annotations" / f"instances_{part}.json"
        write_instances(path, [described for described, _ in content], every)
    return folder


def seen(one, category):
    """Where the colour of a category is seen in an example's picture."""
    colour = np.array(COLOURS[category])
    return (np.abs(one["image"].astype(int) - colour) < 100).all(axis=2)


def bounds(inside):
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], float)


def beside(inside, black):
    """Whether a thing ends where the picture does."""
    grown = inside.copy()
    for _ in range(3):
        grown[1:] |= grown[:-1]
        grown[:-1] |= grown[1:]
        grown[:, 1:] |= grown[:, :-1]
        grown[:, :-1] |= grown[:, 1:]
    return (grown & black).sum() > 10


def check(one, tolerance=3):
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


def test_the_layout_of_coco(raw, tmp_path, build):
    handler = Coco({**ALL, "crowd": True}, str(raw))
    plan = handler.plan()
    assert [(shard.split, shard.examples) for shard in plan.shards] == [("train", 4), ("val", 1)]
    assert handler.features["labels"].names == NAMES
    assert '[\\"person\\", \\"dog\\", \\"bottle\\"]' in features_to_json(handler.features)
    for one in build(handler, tmp_path / "out"):
        assert one["id"].split("/")[0] in ("train2017", "val2017")
        assert one["image"].shape == (640, 640, 3)
        assert sorted(one["labels"].tolist()) == [0, 1, 2]
        assert one["boxes"].dtype == np.float32
        check(one, tolerance=4)  # enlarged two to four times


def test_boxes_are_those_of_the_file(raw, tmp_path, build, photographs):
    (one,) = [
        one
        for one in build(Coco({**ALL, "image_size": None}, str(raw)), tmp_path / "out")
        if one["id"].endswith("china.png")
    ]
    _, annotations = things(photographs["china"])
    height, width = photographs["china"].shape[:2]
    for box, annotation in zip(one["boxes"], annotations, strict=False):
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
def test_boxes_and_masks_follow_the_picture(raw, tmp_path, build, config):
    examples = build(Coco({**ALL, "crowd": True, **config}, str(raw)), tmp_path / "out")
    assert len(examples) >= 5 * config.get("variations_per_sample", 1) - 5
    for one in examples:
        check(one)


def test_turned_boxes_are_tight(raw, tmp_path, build):
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


def test_without_outlines_turned_boxes_hold_their_things(raw, tmp_path, build):
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


def test_crowds_are_left_out_unless_asked_for(raw, tmp_path, build):
    for one in build(Coco(ALL, str(raw)), tmp_path / "out"):
        assert sorted(one["labels"].tolist()) == [0, 1]
        assert one["is_crowd"].tolist() == [0, 0]
        assert one["mask"].max() == 2


def test_instances_are_numbered_as_their_boxes(raw, tmp_path, build):
    config = {"mask": "instances", "crowd": True, "image_size": None}
    for one in build(Coco({**ALL, **config}, str(raw)), tmp_path / "out"):
        for number, label in enumerate(one["labels"].tolist()):
            inside = seen(one, (1, 18, 44)[label])
            assert ((one["mask"][:, :, 0] == number + 1) != inside).mean() < 0.001


def test_smaller_things_are_painted_over_larger_ones(tmp_path, photographs, save, build):
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


def test_categories(raw, tmp_path, build):
    handler = Coco({**ALL, "categories": ["dog", "bottle", "dog"]}, str(raw))
    assert handler.features["labels"].names == ["dog", "bottle"]
    for one in build(handler, tmp_path / "out"):
        assert one["labels"].tolist() == [0]  # the bottles are a crowd
        assert ((one["mask"][:, :, 0] == 1) != seen(one, 18)).mean() < 0.01
    one = Coco.resolve({"categories": ["dog", "bottle"]})
    assert one == Coco.resolve({"categories": ["bottle", "dog", "dog"]})
    with pytest.raises(OptionsError, match=r"no category 'dgo'; did you mean 'dog'\? Categories:"):
        _ = Coco({"categories": ["dgo"]}, str(raw)).features


def test_min_area(raw, photographs):
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


def test_pictures_with_nothing_in_them(raw, tmp_path, build):
    assert len(Coco({}, str(raw)).samples()) == 5
    handler = Coco({**ALL, "keep_empty": True, "categories": ["dog"], "min_area": 1e9}, str(raw))
    examples = build(handler, tmp_path / "all")
    assert len(examples) == 6
    for one in examples:
        assert one["boxes"].shape == (0, 4)
        assert one["labels"].shape == one["is_crowd"].shape == (0,)
        assert one["mask"].max() == 0


def test_things_of_which_little_is_left_are_left_out(raw, tmp_path, build):
    config = {**ALL, "image_size": [200, 200], "crop_size": [60, 60], "variations_per_sample": 20}
    config["random_crop_centered"] = False
    every = build(Coco({**config, "keep_empty": True}, str(raw)), tmp_path / "every")
    assert len(every) == 6 * 20
    some = build(Coco(config, str(raw)), tmp_path / "some")
    assert len(some) == sum(len(one["boxes"]) > 0 for one in every) < 5 * 20
    most = build(Coco({**config, "min_visible": 0.5}, str(raw)), tmp_path / "most")
    assert 0 < sum(len(one["boxes"]) for one in most) < sum(len(one["boxes"]) for one in some)


def test_pictures_beside_their_annotations(tmp_path, photographs, save, build):
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


def test_pictures_in_a_folder_images(raw):
    (raw / "images").mkdir()
    (raw / "train2017").rename(raw / "images" / "train2017")
    ids = {sample.id for sample in Coco({}, str(raw)).samples()}
    assert "images/train2017/china.png" in ids
    assert "val2017/rocket.png" in ids


def test_annotations_without_pictures_are_left_out(raw):
    (raw / "train2017").rename(raw / "elsewhere")
    assert {sample.split for sample in Coco({}, str(raw)).samples()} == {"val"}
    (raw / "val2017").rename(raw / "elsewhere" / "too")
    with pytest.raises(RawDataError, match=r"images of annotations/instances_train2017\.json"):
        Coco({}, str(raw)).samples()


def change(raw, **members):
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
        ("categories", lambda items: items[0].update(name="cat"), "category 18 is 'dog' in"),
    ],
)
def test_damaged_annotations_are_named(raw, member, function, message):
    change(raw, **{member: function})
    with pytest.raises(RawDataError, match=message) as caught:
        Coco({}, str(raw)).plan()
    assert "instances_" in str(caught.value)


def test_what_is_no_json_is_named(raw):
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
def test_damaged_outlines_are_bad_samples(raw, tmp_path, segmentation, message):
    change(raw, annotations=lambda items: items[0].update(segmentation=segmentation))
    handler = Coco({**ALL, "batch_size": 99}, str(raw))
    with pytest.raises(SampleError, match=message) as caught:
        handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord")
    assert caught.value.sample_id == "train2017/china.png"


def test_a_picture_of_another_size_is_a_bad_sample(raw, tmp_path, photographs, save):
    save(raw / "train2017" / "china.png", photographs["flower"])
    handler = Coco({"batch_size": 99}, str(raw))
    with pytest.raises(SampleError, match="are for 200 x 300") as caught:
        handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord")
    assert caught.value.sample_id == "train2017/china.png"


def test_annotations_and_pictures_decide_the_digest(raw):
    def digest():
        return Coco({}, str(raw)).plan().digest

    found = [digest()]
    for name in ("annotations/instances_val2017.json", "train2017/china.png"):
        status = (raw / name).stat()
        os.utime(raw / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        found.append(digest())
    assert len(set(found)) == 3


def test_outlines_are_carried_only_where_they_are_needed(raw):
    def outlines(**config):
        samples = Coco(config, str(raw)).samples()
        return [thing[-1] for sample in samples for thing in sample.data["objects"]]

    assert set(outlines()) == {""}
    assert all(outlines(rotation=1))
    assert all(outlines(input_attributes=["mask"]))


def test_samples_are_json(raw):
    import msgspec

    from dscache_sdk import Plan

    plan = Coco({**ALL, "rotation": 3}, str(raw)).plan()
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_resolution_keeps_the_boxes(raw, tmp_path, build):
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


def test_two_builds_are_equal(raw, tmp_path, build):
    config = {**ALL, "rotation": 25, "exposure": 1, "crowd": True, "variations_per_sample": 3}
    for name in ("one", "two"):
        build(Coco({**config, "image_size": [200, 200]}, str(raw)), tmp_path / name)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_too_many_things_for_one_mask(tmp_path, photographs, save):
    save(tmp_path / "train2017" / "china.png", photographs["china"])
    height, width = photographs["china"].shape[:2]
    pictures = [{"id": 1, "file_name": "china.png", "height": height, "width": width}]
    annotation = {"image_id": 1, "category_id": 18, "bbox": [1, 1, 5, 5], "segmentation": []}
    path = tmp_path / "annotations" / "instances_train2017.json"
    write_instances(path, pictures, [annotation] * 256)
    handler = Coco({**ALL, "mask": "instances"}, str(tmp_path))
    with pytest.raises(SampleError, match="256 objects do not fit a mask of 8 bits"):
        handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord")


def test_too_many_classes_for_one_mask(raw):
    more = [{"id": number, "name": f"thing {number}"} for number in range(1000, 1300)]
    change(raw, categories=lambda items: items.extend(more))
    with pytest.raises(OptionsError, match="303 classes do not fit"):
        _ = Coco(ALL, str(raw)).features
    assert Coco({**ALL, "mask": "instances"}, str(raw)).features["labels"].names[3] == "thing 1000"
