"""The photos handler on real pictures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import sklearn
from PIL import Image as PillowImage

from dataset_handlers import Photos
from dataset_handlers.augment import Variation
from dataset_handlers.geometry import cut_for
from dataset_handlers.pixels import expose, exposure_table, take
from dscache_sdk import OptionsError, RawDataError, SampleError, features_to_json
from dscache_sdk.images import Size
from dscache_sdk.samples import rng_for
from support.handlers import Build, Pixels, class_names

ARTICLE = {
    "input_attributes": ["image"],
    "batch_size": 100,
    "image_size": [1024, 1024],
    "variations_per_sample": 1,
    "crop_size": [800, 800],
    "random_crop_centered": True,
}
SMALL = {"image_size": [64, 80], "crop_size": [48, 56], "splits": {"val": 0}}

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"
PICTURES = {
    "animals/chelsea.png": SKIMAGE / "chelsea.png",
    "people/camera.png": SKIMAGE / "camera.png",  # grey
    "people/astronaut.png": SKIMAGE / "astronaut.png",
    "things/china.jpg": SKLEARN / "china.jpg",
    "things/flower.JPG": SKLEARN / "flower.jpg",
    "things/logo.png": SKIMAGE / "logo.png",  # with transparency
}


def fill(folder: Path, under: str = "") -> Path:
    for name, source in PICTURES.items():
        path = folder / under / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").write_text("no picture")
    return fill(tmp_path / "raw")


def test_the_articles_example_works_as_it_stands(raw: Path, tmp_path: Path, build: Build) -> None:
    handler = Photos(ARTICLE, str(raw))
    assert vars(handler)["crop_size"] == (800, 800)
    plan = handler.plan()
    assert plan.examples == len(PICTURES)
    examples = build(handler, tmp_path / "out")
    assert len(examples) == len(PICTURES)
    assert {tuple(one) for one in examples} == {("image",)}
    assert {one["image"].shape for one in examples} == {(800, 800, 3)}


def test_no_options_at_all(raw: Path, tmp_path: Path, build: Build) -> None:
    examples = build(Photos({}, str(raw)), tmp_path / "out")
    assert {one["image"].shape for one in examples} == {(1024, 1024, 3)}


def test_features_and_labels(raw: Path, tmp_path: Path, build: Build) -> None:
    handler = Photos({**SMALL, "input_attributes": ["label", "image", "id"]}, str(raw))
    examples = build(handler, tmp_path / "out")
    names = class_names(handler.features["label"])
    assert names == ["animals", "people", "things"]
    assert '\\"animals\\", \\"people\\", \\"things\\"' in features_to_json(handler.features)
    assert {one["id"]: names[one["label"]] for one in examples} == {
        name: name.split("/")[0] for name in PICTURES
    }


def test_the_order_of_attributes_makes_no_other_dataset() -> None:
    one = Photos.resolve({"input_attributes": ["image", "id", "image"]})
    assert one == Photos.resolve({"input_attributes": ["id", "image"]})


def test_pictures_without_a_folder_have_no_label(raw: Path) -> None:
    shutil.copy(SKLEARN / "china.jpg", raw / "loose.jpg")
    with pytest.raises(RawDataError, match=r"'loose.jpg' is in no class folder"):
        Photos({"input_attributes": ["label"]}, str(raw)).plan()


def test_split_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        fill(tmp_path, split)
    handler = Photos({"input_attributes": ["id", "label"], "batch_size": 9}, str(tmp_path))
    plan = handler.plan()
    assert [shard.split for shard in plan.shards] == ["train", "val"]
    assert all(sample.id.startswith(f"{sample.split}/") for sample in plan.samples)
    assert class_names(handler.features["label"]) == ["animals", "people", "things"]


def test_a_class_named_train_is_no_split(raw: Path) -> None:
    (raw / "train").mkdir()
    shutil.copy(SKLEARN / "china.jpg", raw / "train" / "locomotive.jpg")
    handler = Photos({"splits": {"val": 0}, "input_attributes": ["label"]}, str(raw))
    assert {sample.split for sample in handler.plan().samples} == {"train"}
    assert "train" in class_names(handler.features["label"])


def test_splits_by_hash(raw: Path) -> None:
    plan = Photos({"splits": {"val": 0.5, "test": 0.5}, "batch_size": 9}, str(raw)).plan()
    assert {sample.split for sample in plan.samples} == {"val", "test"}


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_encodings(raw: Path, tmp_path: Path, encoding: str, build: Build) -> None:
    handler = Photos({**SMALL, "encoding": encoding, "variations_per_sample": 2}, str(raw))
    examples = build(handler, tmp_path / "out")
    assert {one["image"].shape for one in examples} == {(48, 56, 3)}
    assert len(examples) == 2 * len(PICTURES)
    assert not np.array_equal(examples[0]["image"], examples[1]["image"])


def test_pictures_of_their_own_size(raw: Path, tmp_path: Path, build: Build) -> None:
    config = {"image_size": None, "encoding": "raw", "input_attributes": ["id", "image"]}
    for one in build(Photos(config, str(raw)), tmp_path / "out"):
        with PillowImage.open(raw / one["id"]) as picture:
            assert one["image"].shape == (picture.height, picture.width, 3)


@pytest.mark.parametrize(
    ("config", "option", "message"),
    [
        ({"crop_size": [1025, 800]}, "crop_size", "larger than image_size"),
        ({"crop_size": [10, 11], "image_size": [10, 10]}, "crop_size", "larger than image_size"),
        ({"image_size": [0, 10]}, "image_size[0]", ">= 1"),
        ({"input_attributes": []}, "input_attributes", "length >= 1"),
        ({"input_attributes": ["imag"]}, "input_attributes[0]", "'imag'"),
        ({"splits": {"val": 0.6, "test": 0.6}}, "splits", "more than 1"),
        ({"splits": {"dev": 0.1}}, "splits", "unknown field `dev`"),
        ({"encoding": "gif"}, "encoding", "'gif'"),
        ({"batch_size": 0}, "batch_size", ">= 1"),
        ({"rotate": 5}, "rotate", "did you mean 'rotation'?"),
    ],
)
def test_options_are_checked_at_construction(
    config: dict[str, Any], option: str, message: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        Photos(config, "raw")
    assert caught.value.option == option
    assert message in str(caught.value)


def test_every_option_has_help() -> None:
    for name, described in Photos.config_options().items():
        assert described["help"], name


def test_a_cut_picture_is_named(raw: Path, tmp_path: Path) -> None:
    path = raw / "things" / "china.jpg"
    path.write_bytes(path.read_bytes()[:50_000])
    handler = Photos(SMALL, str(raw))
    plan = handler.plan()
    with pytest.raises(SampleError, match=r"'things/china.jpg'.*truncated"):
        handler.write_shard(plan, 0, tmp_path / "x.tfrecord")
    bad: list[SampleError] = []
    stats = handler.write_shard(plan, 0, tmp_path / "x.tfrecord", bad=bad.append)
    assert [error.sample_id for error in bad] == ["things/china.jpg"]
    assert stats.records == len(PICTURES) - 1


def test_a_crop_larger_than_a_picture_of_its_own_size_is_named(
    raw: Path, tmp_path: Path, build: Build
) -> None:
    config = {"image_size": None, "crop_size": [500, 10], "batch_size": 99}
    with pytest.raises(SampleError, match="does not fit this image"):
        build(Photos(config, str(raw)), tmp_path / "out")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match="there are no images"):
        Photos({}, str(tmp_path)).plan()


def test_two_builds_are_equal(raw: Path, tmp_path: Path, build: Build) -> None:
    config = {**SMALL, "rotation": 20, "exposure": 1, "flip": 0.5, "variations_per_sample": 2}
    for name in ("one", "two"):
        build(Photos(config, str(raw)), tmp_path / name)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_another_seed_gives_other_crops(raw: Path, tmp_path: Path, build: Build) -> None:
    first, second = (
        build(Photos({**SMALL, "seed": seed}, str(raw)), tmp_path / str(seed)) for seed in (0, 1)
    )
    assert any(
        not np.array_equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True)
    )


def gradient(height: int, width: int) -> Pixels:
    """Red tells the row, green the column, as fractions of 250; blue marks the inside."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.dstack([rows * 250 / height, columns * 250 / width, np.full_like(rows, 200)])
    return pixels.astype(np.uint8)


def vary(pixels: Pixels, size: Size | None, variation: Variation) -> Pixels:
    return expose(take(pixels, cut_for(pixels.shape[:2], size, variation)), variation.stops)


def draw(number: int, **options: Any) -> Variation:
    return Variation.draw(rng_for(0, "a", number), **options)


def test_switching_options_on_keeps_the_crops() -> None:
    for number in range(20):
        bare, full = draw(number), draw(number, flip=1, rotation=30, exposure=2)
        assert (bare.down, bare.right) == (full.down, full.right)
        assert full.flip
        assert abs(full.degrees) <= 30
        assert abs(full.stops) <= 2


def test_resolution_keeps_the_crops() -> None:
    for number in range(20):
        variation = draw(number, flip=0.5, rotation=25)
        one = vary(gradient(100, 100), (60, 60), variation).astype(int)
        other = vary(gradient(400, 400), (240, 240), variation).astype(int)
        assert np.abs(one[30, 30] - other[120, 120]).max() <= 6


@pytest.mark.parametrize("size", [(60, 60), (100, 100), (100, 40), (10, 100)])
def test_rotation_leaves_no_black_corners(size: Size) -> None:
    for degrees in (-180, -91, -45, -10, 0.5, 3, 30, 45, 90, 135):
        for place in (0.0, 0.5, 1.0):
            part = vary(gradient(100, 100), size, Variation(place, place, degrees=degrees))
            assert part.shape == (*size, 3)
            assert part[:, :, 2].min() >= 199


def test_rotation_turns_by_the_angle_about_the_centre() -> None:
    pixels = gradient(200, 200)
    picture = PillowImage.fromarray(pixels)
    turned = vary(pixels, (100, 100), Variation(0.5, 0.5, degrees=90)).astype(int)
    np.testing.assert_array_equal(turned, np.asarray(picture.rotate(90).crop((50, 50, 150, 150))))
    turned = vary(pixels, (80, 60), Variation(0.5, 0.5, degrees=20)).astype(int)
    expected = picture.rotate(20, PillowImage.Resampling.BILINEAR).crop((70, 60, 130, 140))
    assert np.abs(turned - np.asarray(expected).astype(int)).max() <= 1


def test_centred_crops_stay_near_the_centre_and_free_ones_reach_the_edges() -> None:
    picture = gradient(100, 100)

    def tops(centered: bool) -> list[int]:
        drawn = [draw(number, centered=centered) for number in range(300)]
        return [int(vary(picture, (20, 20), one)[0, 0, 0] / 2.5 + 0.5) for one in drawn]

    assert min(tops(False)) <= 1
    assert max(tops(False)) >= 79
    assert 20 <= min(tops(True)) <= 22
    assert 58 <= max(tops(True)) <= 61


def test_flip_mirrors() -> None:
    picture = gradient(20, 30)
    flipped = vary(picture, None, Variation(0, 0, flip=True))
    np.testing.assert_array_equal(flipped, picture[:, ::-1])
    counts = [draw(number, flip=0.25).flip for number in range(1000)]
    assert 200 < sum(counts) < 300


def test_exposure() -> None:
    assert exposure_table(0.0).tolist() == list(range(256))
    brighter, darker = exposure_table(1.0), exposure_table(-1.0)
    assert brighter[255] == 255
    assert brighter[0] == darker[0] == 0
    assert darker[255] == 188  # half the light of white, in sRGB
    assert brighter[darker[200]] in (199, 200, 201)
    picture = vary(gradient(20, 30), None, Variation(0, 0, stops=-1.0))
    assert picture[0, 0, 2] == darker[200]


TURN = """
import hashlib, numpy, sklearn.datasets
from dataset_handlers.augment import Variation
from dataset_handlers.geometry import cut_for
from dataset_handlers.pixels import take
pixels = sklearn.datasets.load_sample_image("china.jpg")
for degrees in (-33.3, -1.234, 0.5, 17.77, 90, 123.4):
    for nearest in (False, True):
        cut = cut_for(pixels.shape[:2], (300, 500), Variation(0.3, 0.6, degrees=degrees))
        print(hashlib.sha256(take(pixels, cut, nearest=nearest)).hexdigest())
"""


def test_rotation_gives_the_same_bytes_on_every_processor() -> None:
    """OpenCV chooses code by what the processor has; warpAffine's results then differ."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", TURN],
            env={**os.environ, "OPENCV_CPU_DISABLE": disabled},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for disabled in (
            "",
            "AVX512-SKX",
            "AVX512-SKX,AVX2,FMA3",
            "AVX512-SKX,AVX2,FMA3,AVX,SSE4.1",
        )
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 12


def test_rotating_leaves_no_threads_behind() -> None:
    """Builders fork workers from a process that may have tried some samples."""
    code = "import os\n" + TURN + "print(len(os.listdir('/proc/self/task')))"
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "1"


def test_a_picture_too_large_to_be_turned_is_refused() -> None:
    pixels = np.zeros((1, 24_001, 3), np.uint8)
    with pytest.raises(ValueError, match="1 x 24001 pixels is too large to rotate"):
        vary(pixels, None, Variation(0, 0, degrees=1.0))
    assert vary(pixels, None, Variation(0, 0)).shape == pixels.shape


def test_rotation_with_the_nearest_pixel_makes_no_new_values() -> None:
    mask = np.zeros((90, 120), np.uint8)
    mask[20:70, 30:100] = 77
    for degrees in (-100.0, -7.5, 33.0, 90.0, 180.0):
        cut = cut_for(mask.shape, (60, 50), Variation(0.4, 0.6, degrees=degrees))
        assert set(np.unique(take(mask, cut, nearest=True))) <= {0, 77}
    cut = cut_for(mask.shape, None, Variation(0.5, 0.5, degrees=180.0))
    np.testing.assert_array_equal(take(mask, cut, nearest=True), mask[::-1, ::-1])


def test_what_sticks_out_is_mirrored_or_black() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    cut = cut_for((40, 40), None, Variation(0.5, 0.5, degrees=45.0))
    assert take(white, cut).min() == 255
    black = take(white, cut, mirror=False)
    assert black[0, 0].max() == 0
    assert black[20, 20].min() == 255


def test_points_move_as_the_pixels_do() -> None:
    pixels = np.zeros((80, 100), np.uint8)
    pixels[30:33, 60:63] = 255
    compared = 0
    for number in range(40):
        cut = cut_for((80, 100), (50, 60), draw(number, flip=0.5, rotation=60 * (number % 2)))
        part = take(pixels, cut, mirror=False).astype(float)
        if part.sum() < 9 * 250:
            continue
        compared += 1
        rows, columns = np.indices(part.shape) + 0.5
        seen = [(part * columns).sum() / part.sum(), (part * rows).sum() / part.sum()]
        assert np.abs(cut.points(np.array([[61.5, 31.5]]))[0] - seen).max() < 0.1
    assert compared > 10


def test_contain_keeps_proportions_and_fills_with_black(
    raw: Path, tmp_path: Path, build: Build
) -> None:
    config = {"image_size": [90, 60], "resize": "contain", "input_attributes": ["id", "image"]}
    config["encoding"] = "png"
    for one in build(Photos(config, str(raw)), tmp_path / "out"):
        with PillowImage.open(raw / one["id"]) as picture:
            rows = round(60 * picture.height / picture.width)
        lines = one["image"].any(axis=(1, 2))
        assert one["image"].shape == (90, 60, 3)
        assert not lines[: (90 - rows) // 2].any()
        assert abs(int(lines.sum()) - rows) <= 1
