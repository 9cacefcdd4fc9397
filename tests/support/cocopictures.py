"""Pictures in which annotated things can be seen, in COCO's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from support.handlers import Pixels, Save

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 44, "name": "bottle"}]
COLOURS = {1: (255, 0, 0), 18: (0, 255, 0), 44: (0, 0, 255)}

Ends = tuple[float, float]
Inside = npt.NDArray[np.bool_]


def polygon(rows: Ends, columns: Ends, height: int, width: int) -> tuple[list[list[float]], Inside]:
    """A triangle and its pixels."""
    (top, bottom), (left, right) = rows, columns
    outline = [[left, bottom, right, bottom, (left + right) / 2, top]]
    runs = coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
    return outline, coco_mask.decode(runs).astype(bool)


def run_lengths(inside: Inside, packed: bool) -> dict[str, Any]:
    """An ellipse's pixels as COCO writes them: numbers for crowds, packed into text for others."""
    height, width = inside.shape
    if packed:
        runs = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        return {"size": [height, width], "counts": runs["counts"].decode()}
    flat = inside.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}


def ellipse(rows: Ends, columns: Ends, height: int, width: int) -> Inside:
    y, x = np.mgrid[:height, :width] + 0.5
    middle_y, middle_x = np.mean(rows), np.mean(columns)
    far = ((y - middle_y) / (rows[1] - middle_y)) ** 2
    inside: Inside = far + ((x - middle_x) / (columns[1] - middle_x)) ** 2 < 1
    return inside


def things(photograph: Pixels) -> tuple[Pixels, list[dict[str, Any]]]:
    """A darkened photograph with a person (polygon), a dog and a crowd of bottles (run lengths)."""
    height, width = photograph.shape[:2]
    picture = photograph // 8
    places = {
        1: ((0.1 * height, 0.6 * height), (0.05 * width, 0.4 * width)),
        18: ((0.2 * height, 0.5 * height), (0.5 * width, 0.9 * width)),
        44: ((0.65 * height, 0.95 * height), (0.3 * width, 0.8 * width)),
    }
    annotations = []
    outline: list[list[float]] | dict[str, Any]
    for category, place in places.items():
        top, bottom, left, right = (float(round(end)) for ends in place for end in ends)
        if category == 1:
            outline, inside = polygon((top, bottom), (left, right), height, width)
        else:
            inside = ellipse((top, bottom), (left, right), height, width)
            outline = run_lengths(inside, packed=category == 18)
        picture[inside] = COLOURS[category]
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


def write_instances(
    path: Path,
    pictures: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]] = CATEGORIES,
) -> None:
    """An annotation file; annotations are numbered."""
    numbered = [{**one, "id": number} for number, one in enumerate(annotations)]
    content = {"info": {}, "images": pictures, "annotations": numbered, "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_coco(folder: Path, photographs: dict[str, Pixels], save: Save) -> Path:
    """COCO's layout: five pictures to train with, one of them empty, and one for val."""
    parts: dict[str, list[tuple[Any, list[Any]]]] = {"train2017": [], "val2017": []}
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
