"""Reading COCO's instances files: the images, and the annotated objects of each.

Format: https://cocodataset.org/#format-data (object detection). The training set has 860,000
annotations: their structs contain no cycles, so the garbage collector need not track them
(``gc=False``).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import msgspec

from dscache_sdk import OptionsError, RawData, RawDataError

_INSTANCES = re.compile(r"annotations/instances_(?P<name>(?P<split>[A-Za-z]+).*)\.json")
_BESIDE = "_annotations.coco.json"
_FARTHEST = 1e6  # pixels; no image is so large
_SPLITS = {"valid": "val", "validation": "val"}


class ImageEntry(msgspec.Struct, gc=False):
    """One of the file's ``images``; sizes in pixels."""

    id: int | str
    file_name: str
    height: int
    width: int


class Annotation(msgspec.Struct, gc=False):
    """One of the file's ``annotations``: box x, y, width, height and area in pixels."""

    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class Category(msgspec.Struct):
    """One of the file's ``categories``."""

    id: int
    name: str


class Instances(msgspec.Struct):
    """The members of an instances file that the handler uses."""

    images: list[ImageEntry]
    annotations: list[Annotation]
    categories: list[Category]


class CocoFile(msgspec.Struct, frozen=True):
    """An instances file, the folder with its images, and its split."""

    path: str
    folder: str
    split: str


class AnnotatedObject(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An annotated object, as stored in samples; lengths in pixels of the image file.

    Attributes:
        label: index in the list of classes.
        crowd: whether it is a group of objects.
        box: x, y, width, height.
        area: of the object, or of its box if the file has no area.
        outline: the file's ``segmentation``, as JSON; "" if it is missing or not needed.
    """

    label: int
    crowd: bool
    box: list[float]
    area: float
    outline: str = ""


class AnnotatedImage(msgspec.Struct, frozen=True):
    """An image with its objects, as stored in samples; `height` and `width` are its file's."""

    height: int
    width: int
    objects: list[AnnotatedObject]


class Wanted(msgspec.Struct, frozen=True):
    """Which annotations to include.

    Attributes:
        categories: names; None: all.
        min_area: in square pixels of the image file.
        crowd: include groups of objects.
        outlines: read outlines.
    """

    categories: tuple[str, ...] | None = None
    min_area: float = 0.0
    crowd: bool = False
    outlines: bool = False


def coco_files(raw: RawData) -> list[CocoFile]:
    """The instances files whose images exist.

    ``annotations/instances_train2017.json`` with ``train2017/`` or ``images/train2017/``, and
    ``train/_annotations.coco.json`` with its images beside it. COCO's archive of annotations
    contains all splits, so files without images are skipped.

    Raises:
        RawDataError: there is no such file.
    """
    paths = raw.files("annotations/instances_*.json", f"*/{_BESIDE}")
    files = [file for path in paths if (file := _coco_file(raw, path)) is not None]
    if not files:
        missing = f"; the images of {', '.join(paths)} are missing" if paths else ""
        raise RawDataError(
            f"{raw.root} is not laid out as COCO: expected annotations/instances_train2017.json "
            f"and train2017/, or train/{_BESIDE}{missing}"
        )
    return files


def _coco_file(raw: RawData, path: str) -> CocoFile | None:
    folder, _, name = path.rpartition("/")
    if name == _BESIDE:
        return CocoFile(path, folder, _SPLITS.get(folder, folder))
    match = _INSTANCES.fullmatch(path)
    if match is None:
        return None
    for place in (match["name"], f"images/{match['name']}"):
        if (raw / place).is_dir():
            return CocoFile(path, place, _SPLITS.get(match["split"], match["split"]))
    return None


def read_instances(raw: RawData, file: CocoFile) -> Instances:
    """Read an instances file. Raises RawDataError, which names the invalid member."""
    try:
        return msgspec.json.decode((raw / file.path).read_bytes(), type=Instances)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RawDataError(f"'{file.path}' is not a COCO instances file: {error}") from error


def category_ids(
    files: Sequence[tuple[CocoFile, list[Category]]], names: tuple[str, ...] | None
) -> dict[int, str]:
    """The categories to include, id -> name, in the order of their ids.

    Args:
        files: the instances files and their categories.
        names: the names to include; None: all.

    Raises:
        RawDataError: two files have different names for one id, or there are no categories.
        OptionsError: one of `names` does not exist.
    """
    known: dict[int, str] = {}
    for file, categories in files:
        for category in categories:
            if known.setdefault(category.id, category.name) != category.name:
                raise RawDataError(
                    f"category {category.id} is '{category.name}' in '{file.path}' and "
                    f"'{known[category.id]}' in another file; they must agree"
                )
    if not known:
        raise RawDataError(f"'{files[0][0].path}' has no categories")
    for name in names or ():
        if name not in known.values():
            raise OptionsError("categories", _no_category(name, sorted(known.values())))
    included = known.values() if names is None else names
    return {number: known[number] for number in sorted(known) if known[number] in included}


def _no_category(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"there is no category '{name}'; {hint}Categories: {', '.join(known)}"


def annotated_images(
    raw: RawData, file: CocoFile, instances: Instances, labels: dict[int, int], wanted: Wanted
) -> Iterator[tuple[str, AnnotatedImage]]:
    """Every image of a file: its path, and its annotated objects (possibly none).

    Args:
        raw: the raw data.
        file: the instances file.
        instances: its content.
        labels: category id -> label; annotations of other categories are left out.
        wanted: which annotations to include.

    Raises:
        RawDataError: an image is missing or named twice, or an annotation has no image.
    """
    objects: dict[int | str, list[AnnotatedObject]] = {image.id: [] for image in instances.images}
    categories = {category.id for category in instances.categories}
    for annotation in instances.annotations:
        if annotation.image_id not in objects or annotation.category_id not in categories:
            raise RawDataError(
                f"'{file.path}' has an annotation of image {annotation.image_id} and category "
                f"{annotation.category_id}, but the file does not contain both"
            )
        try:
            item = _annotated_object(annotation, labels, wanted)
        except ValueError as error:
            raise RawDataError(
                f"'{file.path}' has an annotation of image {annotation.image_id} that cannot be "
                f"read: {error}"
            ) from error
        if item is not None:
            objects[annotation.image_id].append(item)
    paths = [str(PurePosixPath(file.folder) / image.file_name) for image in instances.images]
    _check_paths(raw, file, paths)
    for path, image in zip(paths, instances.images, strict=True):
        yield path, AnnotatedImage(image.height, image.width, objects[image.id])


def _annotated_object(
    annotation: Annotation, labels: dict[int, int], wanted: Wanted
) -> AnnotatedObject | None:
    width, height = annotation.bbox[2:]
    if max(map(abs, annotation.bbox)) > _FARTHEST:
        raise ValueError(f"its box is {annotation.bbox}")
    area = width * height if annotation.area is None else annotation.area
    label = labels.get(annotation.category_id)
    if label is None or width <= 0 or height <= 0 or area < wanted.min_area:
        return None
    if annotation.iscrowd and not wanted.crowd:
        return None
    outline = bytes(annotation.segmentation).decode() if wanted.outlines else ""  # may not be UTF-8
    empty = outline in ("null", "[]")
    box = list(annotation.bbox)
    return AnnotatedObject(label, bool(annotation.iscrowd), box, area, "" if empty else outline)


def _check_paths(raw: RawData, file: CocoFile, paths: list[str]) -> None:
    twice = [path for path, times in Counter(paths).items() if times > 1]
    if twice:
        raise RawDataError(f"'{file.path}' names the image '{twice[0]}' twice")
    missing = sorted(set(paths) - set(raw.files(f"{file.folder}/**/*")))
    if missing:
        raise RawDataError(
            f"'{file.path}' names {len(paths)} images, of which {len(missing)} do not exist, such "
            f"as '{missing[0]}'"
        )
