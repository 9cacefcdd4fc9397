"""COCO's instances files: which pictures there are, and what is annotated in each.

Format: https://cocodataset.org/#format-data (object detection). The training set has 860,000
annotations: their structs are kept out of the garbage collector (``gc=False``), as they hold no
cycles.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import msgspec

from dscache_sdk import OptionsError, RawData, RawDataError

_INSTANCES = re.compile(r"annotations/instances_(?P<name>(?P<split>[A-Za-z]+).*)\.json")
_BESIDE = "_annotations.coco.json"
_SPLITS = {"valid": "val", "validation": "val"}


class Picture(msgspec.Struct, gc=False):
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
    """The members of an instances file that are needed here."""

    images: list[Picture]
    annotations: list[Annotation]
    categories: list[Category]


class CocoFile(msgspec.Struct, frozen=True):
    """An instances file, the folder with its pictures, and its split."""

    path: str
    folder: str
    split: str


class Thing(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An annotated thing, as samples carry it; lengths in pixels of the picture's file.

    Attributes:
        label: place in the list of categories.
        crowd: it is a group of things.
        box: x, y, width, height.
        area: of the thing, or of its box where the file does not say.
        outline: the file's ``segmentation``, as JSON; "" when it is not needed or there is none.
    """

    label: int
    crowd: bool
    box: list[float]
    area: float
    outline: str = ""


class AnnotatedPicture(msgspec.Struct, frozen=True):
    """A picture with its things, as samples carry it; `height`, `width`: of its file."""

    height: int
    width: int
    things: list[Thing]


class Wanted(msgspec.Struct, frozen=True):
    """Which annotations are taken.

    Attributes:
        categories: names; None: all.
        min_area: in pixels of the picture's file.
        crowd: groups of things too.
        outlines: outlines are needed.
    """

    categories: tuple[str, ...] | None = None
    min_area: float = 0.0
    crowd: bool = False
    outlines: bool = False


def coco_files(raw: RawData) -> list[CocoFile]:
    """The instances files whose pictures are there.

    ``annotations/instances_train2017.json`` with ``train2017/`` or ``images/train2017/``, and
    ``train/_annotations.coco.json`` with its pictures beside it. COCO's archive of annotations
    holds all splits, so a file without pictures is left out.

    Raises:
        RawDataError: there is none.
    """
    paths = raw.files("annotations/instances_*.json", f"*/{_BESIDE}")
    found = [file for path in paths if (file := _coco_file(raw, path)) is not None]
    if not found:
        lonely = f"; the pictures of {', '.join(paths)} are not there" if paths else ""
        raise RawDataError(
            f"{raw.root} is not laid out as COCO: expected annotations/instances_train2017.json "
            f"and train2017/, or train/{_BESIDE}{lonely}"
        )
    return found


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
    """Read an instances file. Raises RawDataError when it is not one; names the place in it."""
    try:
        return msgspec.json.decode((raw / file.path).read_bytes(), type=Instances)
    except msgspec.MsgspecError as error:
        raise RawDataError(f"'{file.path}' is no instances file of COCO: {error}") from error


def category_ids(
    files: Sequence[tuple[CocoFile, list[Category]]], names: tuple[str, ...] | None
) -> dict[int, str]:
    """The categories that are taken, id -> name, in the order of their ids.

    Args:
        files: the instances files and their categories.
        names: those wanted; None: all.

    Raises:
        RawDataError: two files call one id differently, or there are no categories.
        OptionsError: a wanted name is not there.
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
    wanted = known.values() if names is None else names
    return {number: known[number] for number in sorted(known) if known[number] in wanted}


def _no_category(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"there is no category '{name}'; {hint}Categories: {', '.join(known)}"


def annotated_pictures(
    raw: RawData, file: CocoFile, instances: Instances, labels: dict[int, int], wanted: Wanted
) -> Iterator[tuple[str, AnnotatedPicture]]:
    """Every picture of a file: its path, and what is annotated in it (maybe nothing).

    Args:
        raw: the raw data.
        file: the instances file.
        instances: its content.
        labels: category id -> label; annotations of other categories are left out.
        wanted: which annotations are taken.

    Raises:
        RawDataError: a picture is missing or named twice, or an annotation belongs to no picture.
    """
    things: dict[int | str, list[Thing]] = {picture.id: [] for picture in instances.images}
    categories = {category.id for category in instances.categories}
    for annotation in instances.annotations:
        if annotation.image_id not in things or annotation.category_id not in categories:
            raise RawDataError(
                f"'{file.path}' has an annotation of the picture {annotation.image_id} and the "
                f"category {annotation.category_id}, which are not both in the file"
            )
        thing = _thing(annotation, labels, wanted)
        if thing is not None:
            things[annotation.image_id].append(thing)
    paths = [str(PurePosixPath(file.folder) / picture.file_name) for picture in instances.images]
    _check_paths(raw, file, paths)
    for path, picture in zip(paths, instances.images, strict=True):
        yield path, AnnotatedPicture(picture.height, picture.width, things[picture.id])


def _thing(annotation: Annotation, labels: dict[int, int], wanted: Wanted) -> Thing | None:
    width, height = annotation.bbox[2:]
    area = width * height if annotation.area is None else annotation.area
    label = labels.get(annotation.category_id)
    if label is None or width <= 0 or height <= 0 or area < wanted.min_area:
        return None
    if annotation.iscrowd and not wanted.crowd:
        return None
    outline = bytes(annotation.segmentation).decode() if wanted.outlines else ""
    empty = outline in ("null", "[]")
    box = list(annotation.bbox)
    return Thing(label, bool(annotation.iscrowd), box, area, "" if empty else outline)


def _check_paths(raw: RawData, file: CocoFile, paths: list[str]) -> None:
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise RawDataError(f"'{file.path}' names the picture '{twice}' twice")
    missing = sorted(set(paths) - set(raw.files(f"{file.folder}/**/*")))
    if missing:
        raise RawDataError(
            f"'{file.path}' names {len(missing)} of {len(paths)} pictures that are not there, for "
            f"instance '{missing[0]}'"
        )
