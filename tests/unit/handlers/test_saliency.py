"""The saliency handler on pictures whose masks can be seen in them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from dataset_handlers import Saliency
from dscache_sdk import OptionsError, RawDataError, SampleError
from support.handlers import Build, Example, Pixels, Save

Pairs = dict[str, tuple[Pixels, Pixels]]

PNG = {"encoding": "png", "input_attributes": ["id", "image", "mask"]}


def marked(photograph: Pixels) -> tuple[Pixels, Pixels]:
    """A darkened photograph that is red where its mask is white: (picture, mask)."""
    height, width = photograph.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows / height - 0.4) / 0.3) ** 2 + ((columns / width - 0.6) / 0.25) ** 2 < 1
    picture = photograph // 4
    picture[inside, 0] = 255
    return picture, inside.astype(np.uint8) * 255


def disagreement(one: Example) -> float:
    """Share of the pixels where picture and mask of an example say different things."""
    return float(((one["image"][:, :, 0] > 150) != (one["mask"][:, :, 0] > 127)).mean())


@pytest.fixture
def pairs(photographs: dict[str, Pixels]) -> Pairs:
    return {name: marked(photograph) for name, photograph in photographs.items()}


@pytest.fixture
def duts(tmp_path: Path, pairs: Pairs, save: Save) -> Path:
    """DUTS: four pictures to train with, two to test."""
    raw = tmp_path / "duts"
    for number, (name, (picture, mask)) in enumerate(pairs.items()):
        part = "DUTS-TR" if number < 4 else "DUTS-TE"
        save(raw / part / f"{part}-Image" / f"{name}.jpg", picture, quality=95)
        save(raw / part / f"{part}-Mask" / f"{name}.png", mask)
    return raw


@pytest.fixture
def plain(tmp_path: Path, pairs: Pairs, save: Save) -> Path:
    raw = tmp_path / "plain"
    for name, (picture, mask) in pairs.items():
        save(raw / "images" / f"{name}.png", picture)
        save(raw / "masks" / f"{name}.png", mask)
    return raw


def test_the_layout_of_duts(duts: Path, tmp_path: Path, build: Build) -> None:
    handler = Saliency({**PNG, "splits": {"val": 0}, "batch_size": 9}, str(duts))
    plan = handler.plan()
    assert {(sample.split, sample.id.split("/")[0]) for sample in plan.samples} == {
        ("train", "DUTS-TR"),
        ("test", "DUTS-TE"),
    }
    assert plan.examples == 6
    assert [shard.split for shard in plan.shards] == ["train", "test"]
    for one in build(handler, tmp_path / "out"):
        assert one["image"].shape == (320, 320, 3)
        assert one["mask"].shape == (320, 320, 1)
        assert set(np.unique(one["mask"])) == {0, 255}
        assert disagreement(one) < 0.01


def test_a_part_of_the_training_pictures_is_val_and_none_is_test(duts: Path) -> None:
    handler = Saliency({"splits": {"val": 1.0}, "batch_size": 9}, str(duts))
    assert {(sample.split, sample.id[:7]) for sample in handler.plan().samples} == {
        ("val", "DUTS-TR"),
        ("test", "DUTS-TE"),
    }
    handler = Saliency({"splits": {"val": 0, "test": 1.0}, "batch_size": 9}, str(duts))
    assert {sample.split for sample in handler.plan().samples} == {"train", "test"}


def test_one_half_of_duts_is_enough(duts: Path) -> None:
    shutil.rmtree(duts / "DUTS-TE")
    assert Saliency({"splits": {"val": 0}}, str(duts)).plan().examples == 4


VARIED = {"crop_size": [100, 110], "flip": 0.5, "rotation": 60, "variations_per_sample": 6}


@pytest.mark.parametrize(
    "config",
    [
        {"image_size": [150, 170], "resize": "stretch"},
        {"image_size": [150, 120], "resize": "cover"},
        {"image_size": [150, 260], "resize": "contain"},
        {"image_size": None},
        {"image_size": [150, 170], **VARIED},
        {"image_size": [170, 150], "resize": "cover", **VARIED},
        {"image_size": [100, 110], **VARIED},  # no room: what sticks out is mirrored
        {"image_size": None, **VARIED},
    ],
    ids=str,
)
def test_picture_and_mask_go_through_the_same_geometry(
    plain: Path, tmp_path: Path, build: Build, config: dict[str, Any]
) -> None:
    examples = build(Saliency({**PNG, **config}, str(plain)), tmp_path / "out")
    assert len(examples) == 6 * config.get("variations_per_sample", 1)
    for one in examples:
        assert disagreement(one) < 0.01
        assert set(np.unique(one["mask"])) <= {0, 255}
    assert np.mean([one["mask"].mean() for one in examples]) > 20


def test_exposure_leaves_the_mask_alone(plain: Path, tmp_path: Path, build: Build) -> None:
    plain_masks = build(Saliency(PNG, str(plain)), tmp_path / "one")
    exposed = build(Saliency({**PNG, "exposure": 2}, str(plain)), tmp_path / "two")
    for one, other in zip(plain_masks, exposed, strict=True):
        np.testing.assert_array_equal(one["mask"], other["mask"])
        assert not np.array_equal(one["image"], other["image"])


def test_folders_of_splits(tmp_path: Path, pairs: Pairs, save: Save) -> None:
    for number, (name, (picture, mask)) in enumerate(pairs.items()):
        split = ("train", "val", "test")[number % 3]
        save(tmp_path / "images" / split / "deep" / f"{name}.jpg", picture)
        save(tmp_path / "masks" / split / "deep" / f"{name}.png", mask)
    samples = Saliency({"batch_size": 9}, str(tmp_path)).plan().samples
    assert len(samples) == 6
    for sample in samples:
        assert sample.id == f"images/{sample.split}/deep/{sample.id.split('/')[-1]}"
        assert sample.data == sample.id.replace("images", "masks").replace(".jpg", ".png")
        assert sample.files == (sample.data,)


def test_of_two_masks_the_png_is_taken(
    plain: Path, photographs: dict[str, Pixels], save: Save
) -> None:
    save(plain / "masks" / "china.jpg", photographs["china"])
    save(plain / "masks" / "china.tif", photographs["china"])
    masks = {sample.data for sample in Saliency({}, str(plain)).plan().samples}
    assert masks == {f"masks/{name}.png" for name in photographs}


def test_a_picture_without_mask_is_named_with_the_mask_it_should_have(duts: Path) -> None:
    (duts / "DUTS-TR" / "DUTS-TR-Mask" / "china.png").unlink()
    message = (
        "the image 'DUTS-TR/DUTS-TR-Image/china.jpg' has no mask "
        "'DUTS-TR/DUTS-TR-Mask/china.png'; add"
    )
    with pytest.raises(RawDataError, match=message):
        Saliency({}, str(duts)).plan()
    shutil.rmtree(duts / "DUTS-TR" / "DUTS-TR-Mask")
    with pytest.raises(RawDataError, match="and 3 other images have none either"):
        Saliency({}, str(duts)).plan()


def test_a_mask_of_another_size_is_named_with_its_picture(plain: Path, save: Save) -> None:
    save(plain / "masks" / "china.png", np.zeros((200, 299), np.uint8))
    handler = Saliency({"batch_size": 99, "splits": {"val": 0}}, str(plain))
    message = (
        "'masks/china.png' is 200 x 299 pixels, but its image 'images/china.png' is 200 x 300 "
        r"\(height x width\)"
    )
    with pytest.raises(SampleError, match=message) as caught:
        handler.write_shard(handler.plan(), 0, plain / "x.tfrecord")
    assert caught.value.sample_id == "images/china.png"


def test_a_damaged_mask_is_a_bad_sample(plain: Path, tmp_path: Path) -> None:
    path = plain / "masks" / "china.png"
    path.write_bytes(path.read_bytes()[:-30])
    handler = Saliency({"batch_size": 99, "splits": {"val": 0}}, str(plain))
    bad: list[SampleError] = []
    handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord", bad=bad.append)
    assert [error.sample_id for error in bad] == ["images/china.png"]


def test_an_unknown_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"expected DUTS-TR/DUTS-TR-Image/ with .* images/"):
        Saliency({}, str(tmp_path)).plan()


def test_a_changed_mask_changes_the_digest_of_the_plan(plain: Path) -> None:
    def digest() -> str:
        return Saliency({}, str(plain)).plan().digest

    before = digest()
    assert digest() == before
    path = plain / "masks" / "china.png"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digest() != before


def test_a_picture_that_lies_on_its_side_fits_an_upright_mask(
    tmp_path: Path, pairs: Pairs, save: Save, build: Build
) -> None:
    picture, mask = pairs["china"]
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    lying = np.ascontiguousarray(np.rot90(picture))
    save(tmp_path / "images" / "china.jpg", lying, quality=95, exif=exif)
    save(tmp_path / "masks" / "china.png", mask)
    (one,) = build(Saliency(PNG, str(tmp_path)), tmp_path / "out")
    assert disagreement(one) < 0.01


def test_masks_keep_their_values_unless_a_threshold_is_given(
    tmp_path: Path, photographs: dict[str, Pixels], save: Save, build: Build
) -> None:
    grey = photographs["china"][:, :, 1]
    save(tmp_path / "images" / "china.png", photographs["china"])
    save(tmp_path / "masks" / "china.png", grey)
    config = {**PNG, "image_size": None, "splits": {"val": 0}}
    (one,) = build(Saliency(config, str(tmp_path)), tmp_path / "one")
    np.testing.assert_array_equal(one["mask"][:, :, 0], grey)
    (one,) = build(Saliency({**config, "mask_threshold": 100}, str(tmp_path)), tmp_path / "two")
    np.testing.assert_array_equal(one["mask"][:, :, 0], np.where(grey >= 100, 255, 0))


def test_two_builds_are_equal(duts: Path, tmp_path: Path, build: Build) -> None:
    config = {"image_size": [150, 170], "exposure": 1, **VARIED, "splits": {"val": 0}}
    for name in ("one", "two"):
        build(Saliency(config, str(duts)), tmp_path / name)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.parametrize(
    ("config", "option"),
    [
        ({"mask_threshold": 0}, "mask_threshold"),
        ({"crop_size": [321, 320]}, "crop_size"),
        ({"input_attributes": ["label"]}, "input_attributes[0]"),
        ({"splits": {"val": 0.6, "test": 0.6}}, "splits"),
    ],
)
def test_options_are_checked(config: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Saliency(config, "raw")
    assert caught.value.option == option
