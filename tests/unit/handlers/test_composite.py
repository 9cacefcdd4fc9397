"""The composite handler on cut-outs of real photographs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from dataset_handlers import Composite
from dataset_handlers.layers import Placement, lay_over, read_cutout
from dscache_sdk import OptionsError, RawDataError, SampleError, read_rgb
from dscache_sdk.samples import rng_for
from support.handlers import Build, Pixels, Save

EVERYTHING = ["alpha", "background", "id", "image"]
PNG = {"encoding": "png", "image_size": [120, 160], "input_attributes": EVERYTHING}
BACKGROUNDS = ("china", "flower", "rocket")


def cut_out(photograph: Pixels) -> Pixels:
    """An ellipse of a photograph, soft at its edge, with hidden green beyond it: RGBA."""
    height, width = photograph.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    far = np.hypot((rows / height - 0.5) / 0.3, (columns / width - 0.5) / 0.4)
    alpha = (np.clip((1 - far) * 20, 0, 1) * 255).astype(np.uint8)
    colours = np.where(far[:, :, None] < 1, photograph, (0, 255, 0)).astype(np.uint8)
    return np.dstack([colours, alpha])


@pytest.fixture
def raw(tmp_path: Path, photographs: dict[str, Pixels], save: Save) -> Path:
    folder = tmp_path / "raw"
    for name, photograph in photographs.items():
        if name in BACKGROUNDS:
            save(folder / "backgrounds" / f"{name}.jpg", photograph, quality=95)
        else:
            save(folder / "foregrounds" / f"{name}.png", cut_out(photograph))
    return folder


def test_pictures_are_cut_outs_over_backgrounds(raw: Path, tmp_path: Path, build: Build) -> None:
    config = {**PNG, "variations_per_sample": 8, "scale": [0.3, 0.8]}
    examples = build(Composite(config, str(raw)), tmp_path / "out")
    assert len(examples) == 3 * 8
    assert {one["background"] for one in examples} == {f"backgrounds/{n}.jpg" for n in BACKGROUNDS}
    for one in examples:
        image, alpha = one["image"].astype(int), one["alpha"][:, :, 0]
        assert image.shape == (120, 160, 3)
        below = read_rgb(raw / one["background"], (120, 160), "cover")
        outside = alpha == 0
        np.testing.assert_array_equal(image[outside], below[outside])
        assert alpha.max() == 255
        rows = np.flatnonzero(alpha.any(axis=1))
        columns = np.flatnonzero(alpha.any(axis=0))
        share = max(np.ptp(rows) / 120, np.ptp(columns) / 160)
        assert 0.27 < share < 0.81
        assert abs(image[alpha == 255] - below[alpha == 255].astype(int)).mean() > 5


def test_the_matte_is_the_share_of_the_cut_out(raw: Path) -> None:
    cutout = read_cutout(raw / "foregrounds" / "chelsea.png")
    placed = Placement(0.0, 0.5, 0.5, 0.8)
    over_black, alpha = lay_over(cutout, np.zeros((100, 100, 3), np.uint8), placed)
    over_white, same = lay_over(cutout, np.full((100, 100, 3), 255, np.uint8), placed)
    np.testing.assert_array_equal(alpha, same)
    seen_through = over_white.astype(int) - over_black.astype(int)
    assert abs(seen_through - (255 - alpha.astype(int))[:, :, None]).max() <= 1
    soft = (alpha > 0) & (alpha < 255)
    assert soft.sum() > 50


def test_hidden_colours_do_not_bleed_into_the_edge(tmp_path: Path, save: Save) -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, :] = (0, 255, 0, 0)
    pixels[10:30, 10:30] = (200, 0, 0, 255)
    pixels[0, 0, 3] = pixels[-1, -1, 3] = 1  # keeps the margins
    cutout = read_cutout(save(tmp_path / "x.png", pixels))
    assert cutout.size == (40, 40)
    image, alpha = lay_over(cutout, np.zeros((100, 100, 3), np.uint8), Placement(0, 0.5, 0.5, 0.77))
    assert ((alpha > 10) & (alpha < 245)).any()
    assert image[:, :, 1].max() <= 2


def test_margins_do_not_count(raw: Path) -> None:
    cutout = read_cutout(raw / "foregrounds" / "chelsea.png")
    alpha = np.asarray(cutout)[:, :, 3]
    assert alpha.any(axis=0).all()
    assert alpha.any(axis=1).all()


@pytest.mark.parametrize("scale", [0.01, 0.5, 1.0, 2.0])
def test_placements_at_the_ends(raw: Path, scale: float) -> None:
    cutout = read_cutout(raw / "foregrounds" / "coffee.png")
    for down in (0.0, 1.0):
        for right in (0.0, 1.0):
            placed = Placement(0, down, right, scale)
            image, alpha = lay_over(cutout, np.zeros((50, 90, 3), np.uint8), placed)
            assert image.shape == (50, 90, 3)
            assert alpha.any() or scale < 0.1
            if scale == 0.5:
                rows, columns = np.any(alpha, axis=1), np.any(alpha, axis=0)
                assert (rows[:3].any(), rows[-3:].any()) == (down == 0, down == 1)
                assert (columns[:3].any(), columns[-3:].any()) == (right == 0, right == 1)


def test_flips(raw: Path) -> None:
    cutout = read_cutout(raw / "foregrounds" / "coffee.png")
    below = np.asarray(PillowImage.open(raw / "backgrounds" / "china.jpg").resize((90, 50)))
    image, alpha = lay_over(cutout, below, Placement(0.0, 0.5, 0.0, 0.5))
    flipped = Placement(0.0, 0.5, 1.0, 0.5, flip=True, background_flip=True)
    both, mirrored = lay_over(cutout, below, flipped)
    np.testing.assert_array_equal(mirrored, alpha[:, ::-1])
    np.testing.assert_array_equal(both, image[:, ::-1])


def test_draws_keep_to_the_options_and_do_not_depend_on_them() -> None:
    for number in range(50):

        def draw(*arguments: Any, **named: Any) -> Placement:
            return Placement.draw(rng_for(0, "a", number), *arguments, **named)  # noqa: B023

        bare, full = draw((0.2, 0.4), 0.0), draw((0.2, 0.4), 1.0, 1.0, 1.0)
        assert (bare.down, bare.right) == (0.5, 0.5)
        assert bare.background == full.background
        assert bare.scale == full.scale
        assert 0.2 <= bare.scale <= 0.4
        assert 0 <= full.down <= 1
        assert full.flip
        assert full.background_flip
        assert not bare.flip


def test_resolution_keeps_the_placements(raw: Path, tmp_path: Path, build: Build) -> None:
    sizes = ([60, 80], [120, 160])
    config = {**PNG, "variations_per_sample": 4, "flip": 0.5}
    small, large = (
        build(Composite({**config, "image_size": size}, str(raw)), tmp_path / str(size[0]))
        for size in sizes
    )
    for one, other in zip(small, large, strict=True):
        assert one["background"] == other["background"]
        shrunk = other["alpha"].reshape(60, 2, 80, 2).mean(axis=(1, 3))
        assert np.abs(shrunk - one["alpha"][:, :, 0]).mean() < 6


def test_two_builds_are_equal_and_variations_differ(
    raw: Path, tmp_path: Path, build: Build
) -> None:
    config = {**PNG, "variations_per_sample": 3}
    for name in ("one", "two"):
        examples = build(Composite(config, str(raw)), tmp_path / name)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert not np.array_equal(examples[0]["alpha"], examples[1]["alpha"])


def test_every_background_decides_the_digest(
    raw: Path, photographs: dict[str, Pixels], save: Save
) -> None:
    def digest() -> str:
        return Composite({}, str(raw)).plan().digest

    before = digest()
    save(raw / "backgrounds" / "one more.jpg", photographs["coffee"])
    more = digest()
    shutil.copy(raw / "backgrounds" / "china.jpg", raw / "backgrounds" / "one more.jpg")
    assert len({before, more, digest()}) == 3


def test_backgrounds_of_a_split_stay_in_it(
    tmp_path: Path, photographs: dict[str, Pixels], save: Save, build: Build
) -> None:
    for split in ("train", "val"):
        save(tmp_path / "foregrounds" / split / "a.png", cut_out(photographs["coffee"]))
        for name in BACKGROUNDS[:2]:
            save(tmp_path / "backgrounds" / split / f"{name}.jpg", photographs[name])
    handler = Composite({**PNG, "variations_per_sample": 5}, str(tmp_path))
    for one in build(handler, tmp_path / "out"):
        assert one["background"].split("/")[1] == one["id"].split("/")[1]
    shutil.rmtree(tmp_path / "backgrounds" / "val")
    with pytest.raises(RawDataError, match="no backgrounds for the split val"):
        Composite({}, str(tmp_path)).plan()


def test_splits_by_hash_share_the_backgrounds(raw: Path) -> None:
    samples = Composite({"splits": {"val": 0.5, "test": 0.5}}, str(raw)).plan().samples
    assert len(samples) == 3
    assert {sample.split for sample in samples} <= {"val", "test"}


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((9, 9, 3), np.uint8), "mode RGB has no transparency"),
        (np.zeros((9, 9, 4), np.uint8), "fully transparent"),
    ],
)
def test_what_is_no_cut_out_is_a_bad_sample(
    raw: Path, save: Save, tmp_path: Path, pixels: Pixels, message: str
) -> None:
    save(raw / "foregrounds" / "bad.png", pixels)
    handler = Composite({"batch_size": 99, "splits": {"val": 0}}, str(raw))
    with pytest.raises(SampleError, match=rf"'foregrounds/bad.png'.*{message}"):
        handler.write_shard(handler.plan(), 0, tmp_path / "x.tfrecord")


@pytest.mark.parametrize("folder", ["foregrounds", "backgrounds"])
def test_a_missing_folder_is_named(raw: Path, folder: Path) -> None:
    shutil.rmtree(raw / folder)
    with pytest.raises(RawDataError, match=rf"no images in .*/{folder}"):
        Composite({}, str(raw)).plan()


@pytest.mark.parametrize(
    ("config", "option"),
    [
        ({"scale": [0.9, 0.4]}, "scale"),
        ({"scale": [0, 0.4]}, "scale[0]"),
        ({"position": 1.5}, "position"),
        ({"image_size": None}, "image_size"),
    ],
)
def test_options_are_checked(config: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Composite(config, "raw")
    assert caught.value.option == option
