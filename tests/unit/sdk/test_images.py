"""Reading pictures of every kind, cropping, the contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage
from PIL.Image import Image as Picture

from dscache_sdk import BBoxes, ClassLabel, ClassLabels, Image, Scalar, Text, crop, read_rgb
from dscache_sdk.images import Fit, Size, fitting, open_mask, upright_size
from dscache_sdk.preview import contact_sheet, statistics
from dscache_sdk.samples import rng_for
from support.handlers import Example, Pixels


def save(picture: Picture, path: Path, **options: Any) -> Path:
    picture.save(path, **options)
    return path


@pytest.fixture
def quarters() -> Picture:
    """Red, green over blue, white: 40 high, 60 wide."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:] = (255, 0, 0), (0, 255, 0)
    pixels[20:, :30], pixels[20:, 30:] = (0, 0, 255), (255, 255, 255)
    return PillowImage.fromarray(pixels)


def corners(pixels: Pixels) -> str:
    height, width = pixels.shape[:2]
    places = [(5, 5), (5, width - 6), (height - 6, 5), (height - 6, width - 6)]
    return "".join("krgybmcw"[int((pixels[place] > 127) @ (1, 2, 4))] for place in places)


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("RGB", "x.png", "rgbw"),
        ("CMYK", "x.jpg", "rgbw"),
        ("CMYK", "x.tif", "rgbw"),
        ("P", "x.gif", "rgbw"),
        ("P", "x.png", "rgbw"),
        ("L", "x.png", "kwkw"),
        ("LA", "x.png", "kwkw"),
        ("1", "x.png", None),
        ("RGBA", "x.webp", "rgbw"),
    ],
)
def test_kinds_of_pictures(
    quarters: Picture, tmp_path: Path, mode: str, name: str, expected: str | None
) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    pixels = read_rgb(save(quarters.convert(mode), tmp_path / name, **options))
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8
    assert expected is None or corners(pixels) == expected


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    read = read_rgb(save(PillowImage.fromarray(pixels), tmp_path / "x.png"))
    assert read[0, 0].tolist() == [10, 20, 30]
    assert read[1, 1].tolist() == [255, 255, 255]


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    values = np.array([[0, 256], [65535, 32768]], np.uint16)
    read = read_rgb(save(PillowImage.fromarray(values), tmp_path / "x.png"))
    assert read[:, :, 0].tolist() == [[0, 1], [255, 128]]


def test_pixels_without_a_range_are_refused(tmp_path: Path) -> None:
    path = save(PillowImage.fromarray(np.zeros((2, 2), np.float32)), tmp_path / "x.tif")
    with pytest.raises(ValueError, match="mode F"):
        read_rgb(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, (20, 30)])
def test_exif_rotation_is_undone(
    quarters: Picture, tmp_path: Path, orientation: int, size: Size | None
) -> None:
    undo = {
        2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
        3: PillowImage.Transpose.ROTATE_180,
        4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
        5: PillowImage.Transpose.TRANSPOSE,
        6: PillowImage.Transpose.ROTATE_90,
        7: PillowImage.Transpose.TRANSVERSE,
        8: PillowImage.Transpose.ROTATE_270,
    }
    stored = quarters.transpose(undo[orientation]) if orientation in undo else quarters
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    path = save(stored, tmp_path / "x.jpg", exif=exif, quality=95, subsampling=0)
    pixels = read_rgb(path, size)
    assert pixels.shape == (*(size or (40, 60)), 3)
    assert corners(pixels) == "rgbw"


def test_large_jpegs_lying_on_their_side_keep_their_detail(tmp_path: Path) -> None:
    """The reduced decoding must look at the sides as they are stored."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 800, 1), dtype=np.uint8)
    picture = PillowImage.fromarray(np.repeat(noise, 3, axis=2))
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    path = save(picture, tmp_path / "x.jpg", exif=exif, quality=95)
    assert read_rgb(path, (800, 100)).std() > 50


def test_fits(quarters: Picture, tmp_path: Path) -> None:
    path = save(quarters, tmp_path / "x.png")
    assert corners(read_rgb(path, (50, 50))) == "rgbw"
    covered = read_rgb(path, (20, 20), "cover")
    assert covered.shape == (20, 20, 3)
    assert corners(covered) == "rgbw"
    np.testing.assert_array_equal(read_rgb(path, (40, 60)), np.asarray(quarters))


@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
@pytest.mark.parametrize("size", [(20, 20), (40, 60), (100, 30), (33, 77)])
def test_pictures_and_masks_and_points_are_resized_alike(
    tmp_path: Path, fit: Fit, size: Size
) -> None:
    picture = np.zeros((40, 60), np.uint8)
    picture[12:28, 20:40] = 255
    path = save(PillowImage.fromarray(picture), tmp_path / "x.png")
    pixels = read_rgb(path, size, fit)[:, :, 0]
    mask = np.asarray(open_mask(path, size, fit))
    assert pixels.shape == mask.shape == size
    assert set(np.unique(mask)) == {0, 255}
    assert ((pixels > 127) != (mask > 127)).mean() < 0.02
    ends = fitting((40, 60), size, fit).points(np.array([[20, 12], [40, 28]]))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    found = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]
    assert np.abs(ends.clip(0, size[::-1]) - found).max() <= 1


def test_contain_keeps_proportions_and_fills_up_with_black(
    quarters: Picture, tmp_path: Path
) -> None:
    path = save(quarters, tmp_path / "x.png")
    pixels = read_rgb(path, (40, 100), "contain")
    assert pixels.shape == (40, 100, 3)
    np.testing.assert_array_equal(pixels[:, 20:80], np.asarray(quarters))
    assert not pixels[:, :20].any()
    assert not pixels[:, 80:].any()
    assert read_rgb(path, (1, 1000), "contain").shape == (1, 1000, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_kinds_of_masks(tmp_path: Path, mode: str) -> None:
    values = np.zeros((6, 8), np.uint8)
    values[2:4, 3:] = 255
    picture = PillowImage.fromarray(values)
    if mode == "I;16":
        picture = PillowImage.fromarray(values.astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    np.testing.assert_array_equal(open_mask(save(picture, tmp_path / "x.png")), values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_known_without_decoding(
    quarters: Picture, tmp_path: Path, orientation: int
) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    path = save(quarters, tmp_path / "x.jpg", exif=exif)
    assert upright_size(path) == read_rgb(path).shape[:2]


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_cut_files_and_other_files_are_errors(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(PillowImage.fromarray(noise), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(OSError, match="truncated"):
        read_rgb(path)
    path.write_bytes(b"no picture")
    with pytest.raises(OSError, match="cannot identify"):
        read_rgb(path)


def places(side: int) -> npt.NDArray[Any]:
    """A square whose pixels say where they are."""
    return np.moveaxis(np.mgrid[:side, :side], 0, -1)


def test_crops_are_the_same_part_at_every_resolution() -> None:
    small = places(100) / 100
    large = places(400) / 400
    for number in range(20):
        one = crop(small, (50, 50), rng_for(0, "a", number))
        other = crop(large, (200, 200), rng_for(0, "a", number))
        assert np.abs(one[0, 0] - other[0, 0]).max() <= 0.011


def test_crops_reach_everywhere_or_stay_near_the_centre() -> None:
    picture = places(10)
    free = {tuple(crop(picture, (8, 8), rng_for(0, "a", n))[0, 0]) for n in range(300)}
    assert free == {(top, left) for top in range(3) for left in range(3)}
    picture = places(100)
    starts = [crop(picture, (20, 20), rng_for(0, "a", n), centered=True)[0, 0] for n in range(300)]
    assert 20 <= np.min(starts) < 25
    assert 56 < np.max(starts) <= 61
    with pytest.raises(ValueError, match="does not fit"):
        crop(picture, (101, 1), rng_for(0, "a", 0))


FEATURES = {
    "image": Image(),
    "mask": Image("png", (None, None, 1)),
    "boxes": BBoxes(),
    "label": ClassLabel(["ant", "bee"]),
    "id": Text(),
    "n": Scalar("int64"),
}


def example(number: int) -> Example:
    return {
        "image": np.full((50, 100, 3), 40 * number, np.uint8),
        "mask": np.full((50, 100, 1), 255, np.uint8),
        "boxes": np.array([[0.1, 0.1, 0.9, 0.9]], np.float32),
        "label": np.int64(number % 3 - 1),
        "id": "a/very/long/path/" * 5 + f"{number}.jpg",
        "n": np.int64(number),
    }


def test_the_contact_sheet_shows_every_picture() -> None:
    sheet = contact_sheet([example(number) for number in range(5)], FEATURES, columns=2)
    pixels = np.asarray(sheet).reshape(-1, 3)
    for number in range(5):
        assert (pixels == 40 * number).all(axis=1).sum() > 10_000
    assert (pixels == (255, 64, 0)).all(axis=1).any()
    assert sheet.mode == "RGB"


def test_the_contact_sheet_shows_what_masks_and_boxes_mean() -> None:
    features = {
        "image": Image(),
        "mask": Image("png", (None, None, 1)),
        "boxes": BBoxes(),
        "labels": ClassLabels(["ant", "bee"]),
    }
    numbers = np.zeros((50, 100, 1), np.uint8)
    numbers[10:20], numbers[30:40] = 1, 2
    shown = {
        "image": np.full((50, 100, 3), 100, np.uint8),
        "mask": numbers,
        "boxes": np.array([[0.1, 0.1, 0.5, 0.5], [0.5, 0.6, 0.9, 0.9]], np.float32),
        "labels": np.array([1, 1]),
    }
    sheet = np.asarray(contact_sheet([shown], features))
    colours = {tuple(colour) for colour in sheet[:, 210:380].reshape(-1, 3).tolist()}
    saturated = {colour for colour in colours if max(colour) - min(colour) > 100}
    assert len(saturated) == 2  # one for each number, however dark the numbers are

    def words(labels: list[int]) -> Pixels:
        return np.asarray(contact_sheet([{**shown, "labels": np.array(labels)}], features))

    assert (words([1, 1])[:150, :200] != words([1, 0])[:150, :200]).any()
    assert (words([1, 1])[200:220] != words([1, 0])[200:220]).any()
    grey = contact_sheet([{**shown, "mask": numbers * 100}], features)
    assert (np.asarray(grey) == 200).all(axis=2).any()


def test_the_contact_sheet_without_pictures_or_examples() -> None:
    assert contact_sheet([], FEATURES).width > 100
    only_text = {"id": Text()}
    assert contact_sheet([{"id": "x"}], only_text).width > 100


def test_statistics() -> None:
    text = statistics([example(0), example(1)], FEATURES)
    assert text == "2 examples, 50x100x3, mean 20, deviation 0, label: 2 classes"
    with_matte = {"alpha": Image("png", (None, None, 1)), **FEATURES}
    assert statistics([{**example(0), "alpha": 1}], with_matte).startswith("1 examples, 50x100x3")
