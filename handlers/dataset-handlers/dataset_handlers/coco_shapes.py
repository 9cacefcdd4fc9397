"""Things of a COCO picture through resizing and cutting: their boxes, outlines and masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dataset_handlers.coco_index import AnnotatedPicture, Thing
from dataset_handlers.geometry import Cut, Points
from dataset_handlers.pixels import Pixels, take
from dataset_handlers.run_lengths import mask_of
from dscache_sdk.images import Fit, Fitting, Size, fitting, resize_mask

_MASK_MAX = 255  # one channel of 8 bits


class Shape(msgspec.Struct, frozen=True):
    """A thing in the resized picture; points x, y in its pixels.

    Attributes:
        thing: as the file has it.
        corners: float64 [4, 2], of its box.
        polygons: float64 [n, 2] each; empty where there is a mask, or nothing.
        mask: uint8 [height, width] of the resized picture, 1 inside; of outlines that are no
            polygons.
    """

    thing: Thing
    corners: Points
    polygons: list[Points]
    mask: Pixels | None = None

    def hull(self) -> Points:
        """Points whose bounds are the thing's, however it is turned."""
        if self.polygons:
            return np.concatenate(self.polygons)
        if self.mask is None or not self.mask.any():
            return self.corners
        return _row_ends(self.mask)


class Seen(msgspec.Struct, frozen=True):
    """A thing that a cut shows; `box`: float64 ymin, xmin, ymax, xmax as fractions."""

    shape: Shape
    box: npt.NDArray[np.float64]


def shapes_of(annotated: AnnotatedPicture, target: Size | None, fit: Fit) -> list[Shape]:
    """The things of a picture, resized with it.

    Args:
        annotated: from the sample.
        target: (height, width) to resize to; None: not resized.
        fit: how; see `dscache_sdk.images.open_rgb`.

    Raises:
        ValueError: an outline is neither polygons nor run lengths of the picture's size.
    """
    source = (annotated.height, annotated.width)
    how = fitting(source, target or source, fit)
    return [_shape(thing, source, target or source, fit, how) for thing in annotated.things]


def _shape(thing: Thing, source: Size, target: Size, fit: Fit, how: Fitting) -> Shape:
    x, y, width, height = thing.box
    box = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    outline = msgspec.json.decode(thing.outline) if thing.outline else []
    corners = how.points(box)
    if isinstance(outline, list):
        return Shape(thing, corners, [how.points(points) for points in _polygons(outline)])
    mask = _resized(mask_of(outline, source), target, fit)
    return Shape(thing, corners, [], mask)


def _polygons(outline: list[Any]) -> list[Points]:
    """Polygons x0, y0, x1, y1, … as [n, 2]; those of fewer than three points are left out."""
    try:
        flat = [np.array(numbers, dtype=np.float64) for numbers in outline]
        return [numbers.reshape(-1, 2) for numbers in flat if numbers.size >= 6]
    except (TypeError, ValueError) as error:
        raise ValueError(f"a segmentation holds no polygons x0, y0, x1, y1, …: {error}") from error


def _coco_mask() -> Any:
    from pycocotools import mask

    return mask


def _pixels(runs: Any) -> Pixels:
    """Packed run lengths to a mask."""
    with warnings.catch_warnings():
        # pycocotools 2.0.11 uses numpy in a way that numpy 2 announces to change.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        decoded: Pixels = _coco_mask().decode(runs)
    return decoded


def _resized(mask: Pixels, target: Size, fit: Fit) -> Pixels:
    from PIL import Image

    return np.asarray(resize_mask(Image.fromarray(mask), target, fit))


def _row_ends(mask: Pixels) -> Points:
    """The corners of the first and last pixel of every row: no other point lies further out."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    ends = [(x, y) for x in (first, last) for y in (rows, rows + 1)]
    return np.concatenate([np.stack(end, axis=1) for end in ends]).astype(np.float64)


def seen_through(
    cut: Cut, picture: Size, shapes: Sequence[Shape], min_visible: float
) -> list[Seen]:
    """The things that a cut shows, with their boxes cut off at its edges and the picture's.

    Args:
        cut: part of the resized picture.
        picture: (height, width) of the resized picture.
        shapes: from `shapes_of`.
        min_visible: share of its box that must be left of a thing; 0: anything.
    """
    found = []
    room, edges = np.array(cut.size[::-1], np.float64), np.array(picture[::-1], np.float64)
    for shape in shapes:
        # A turned box is larger than its thing; the outline, where there is one, tells more.
        points = shape.hull() if cut.degrees else shape.corners
        inside = np.clip(points, 0, edges)
        moved = cut.points(inside)
        low, high = moved.min(axis=0).clip(0, room), moved.max(axis=0).clip(0, room)
        left, whole = np.prod(high - low), np.prod(np.ptp(cut.points(points), axis=0))
        if np.ptp(inside, axis=0).min() > 0 and left > 0 and left >= min_visible * whole:
            ends = (low / room)[::-1], (high / room)[::-1]
            found.append(Seen(shape, np.clip(np.concatenate(ends), 0, 1)))
    return found


def paint(cut: Cut, picture: Size, seen: Sequence[Seen], values: Sequence[int]) -> Pixels:
    """Paint the things that a cut shows into one mask, smaller ones over larger ones.

    Args:
        cut: part of the resized picture.
        picture: (height, width) of the resized picture; outside of it nothing is painted.
        seen: from `seen_through`.
        values: of their pixels, 1 to 255.

    Returns:
        uint8 [height, width] of the cut; 0 is background.

    Raises:
        ValueError: there are more than 255 values.
    """
    if max(values, default=0) > _MASK_MAX:
        raise ValueError(
            f"{max(values)} things do not fit a mask of 8 bits (at most {_MASK_MAX}); leave "
            "small ones out with min_area, or write classes"
        )
    canvas = np.zeros(cut.size, np.uint8)
    order = sorted(range(len(seen)), key=lambda number: -seen[number].shape.thing.area)
    for number in order:
        canvas[_drawn(cut, seen[number].shape)] = values[number]
    if cut.degrees:
        canvas[take(np.ones(picture, np.uint8), cut, nearest=True, mirror=False) == 0] = 0
    return canvas


def _drawn(cut: Cut, shape: Shape) -> npt.NDArray[np.bool_]:
    """A thing in the cut; one without an outline is its box."""
    if shape.mask is not None:
        return take(shape.mask, cut, nearest=True, mirror=False).astype(bool)
    polygons = [cut.points(points).ravel().tolist() for points in shape.polygons or [shape.corners]]
    runs = _coco_mask().merge(_coco_mask().frPyObjects(polygons, *cut.size))
    return _pixels(runs).astype(bool)
