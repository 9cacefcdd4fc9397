"""COCO objects in a resized and cropped image: their boxes, outlines and masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dataset_handlers.coco_index import AnnotatedImage, AnnotatedObject
from dataset_handlers.geometry import Cut, Points
from dataset_handlers.pixels import Pixels, take
from dataset_handlers.run_lengths import mask_of
from dscache_sdk.images import Fit, Fitting, Size, fitting, resize_mask

_MASK_MAX = 255  # one channel of 8 bits
_FARTHEST = 2  # of a point from the image's corner, in sums of its height and width
_LONGEST = 1000  # polygon, in the same unit


class Shape(msgspec.Struct, frozen=True):
    """An object in the resized image; points are x, y in its pixels.

    Attributes:
        annotated: the object as annotated.
        corners: float64 [4, 2], of its box.
        polygons: float64 [n, 2] each; empty if there is a mask or no outline.
        mask: uint8 [height, width] of the resized image, 1 inside; for outlines that are not
            polygons.
    """

    annotated: AnnotatedObject
    corners: Points
    polygons: list[Points]
    mask: Pixels | None = None

    def hull(self) -> Points:
        """Points, float64 [n, 2], with the object's bounds at any rotation."""
        if self.polygons:
            return np.concatenate(self.polygons)
        if self.mask is None or not self.mask.any():
            return self.corners
        return _row_ends(self.mask)


class Seen(msgspec.Struct, frozen=True):
    """An object visible in a cut; `box`: float64 ymin, xmin, ymax, xmax as fractions."""

    shape: Shape
    box: npt.NDArray[np.float64]


def shapes_of(annotated: AnnotatedImage, target: Size | None, fit: Fit) -> list[Shape]:
    """Resize the objects of an image.

    Args:
        annotated: the image's annotations, from the sample.
        target: (height, width) to resize to; None: do not resize.
        fit: see `dscache_sdk.images.open_rgb`.

    Raises:
        ValueError: an outline is neither polygons nor run lengths of the image's size.
    """
    source = (annotated.height, annotated.width)
    placement = fitting(source, target or source, fit)
    return [_shape(item, source, target or source, fit, placement) for item in annotated.objects]


def _shape(
    item: AnnotatedObject, source: Size, target: Size, fit: Fit, placement: Fitting
) -> Shape:
    x, y, width, height = item.box
    box = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    outline = _decoded(item.outline) if item.outline else []
    corners = placement.points(box)
    if isinstance(outline, list):
        polygons = _polygons(outline, source)
        return Shape(item, corners, [placement.points(points) for points in polygons])
    mask = _resized(mask_of(outline, source), target, fit)
    return Shape(item, corners, [], mask)


def _decoded(outline: str) -> Any:
    try:
        return msgspec.json.decode(outline)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"a segmentation is not JSON: {error}") from error


def _polygons(outline: list[Any], image: Size) -> list[Points]:
    """Polygons x0, y0, x1, y1, … as float64 [n, 2], except those of fewer than three points.

    Raises ValueError also for polygons far outside the image, or with edges that are together
    longer than any real outline: the COCO API walks along each edge, pixel by pixel, in memory.
    """
    try:
        flat = [np.array(msgspec.convert(one, list[float]), np.float64) for one in outline]
        polygons = [numbers.reshape(-1, 2) for numbers in flat if numbers.size >= 6]
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        raise ValueError(
            f"a segmentation is not a list of polygons x0, y0, x1, y1, …: {error}"
        ) from error
    room = float(sum(image))
    for points in polygons:
        if np.abs(points).max() > _FARTHEST * room:
            raise ValueError("a polygon of a segmentation lies far outside the image")
        if np.abs(np.diff(points, axis=0)).sum() > _LONGEST * room:
            raise ValueError("a polygon of a segmentation is longer than any outline can be")
    return polygons


def _coco_mask() -> Any:
    from pycocotools import mask

    return mask


def _pixels(runs: Any) -> Pixels:
    """Decode packed run lengths to a mask."""
    with warnings.catch_warnings():
        # pycocotools 2.0.11 uses an interface that numpy 2 deprecates.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        decoded: Pixels = _coco_mask().decode(runs)
    return decoded


def _resized(mask: Pixels, target: Size, fit: Fit) -> Pixels:
    from PIL import Image

    return np.asarray(resize_mask(Image.fromarray(mask), target, fit))


def _row_ends(mask: Pixels) -> Points:
    """The corners of every row's first and last pixel, whose convex hull is the mask's."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    ends = [(x, y) for x in (first, last) for y in (rows, rows + 1)]
    return np.concatenate([np.stack(end, axis=1) for end in ends]).astype(np.float64)


def seen_through(
    cut: Cut, image_size: Size, shapes: Sequence[Shape], min_visible: float
) -> list[Seen]:
    """The objects visible in a cut, with boxes clipped to the cut and to the image.

    Args:
        cut: part of the resized image.
        image_size: (height, width) of the resized image.
        shapes: from `shapes_of`.
        min_visible: share of an object's box that must remain; 0: keep all.
    """
    visible = []
    room, edges = np.array(cut.size[::-1], np.float64), np.array(image_size[::-1], np.float64)
    for shape in shapes:
        # The bounds of a rotated box exceed the object's; an outline gives tighter ones.
        points = shape.hull() if cut.degrees else shape.corners
        inside = np.clip(points, 0, edges)
        moved = cut.points(inside)
        low, high = moved.min(axis=0).clip(0, room), moved.max(axis=0).clip(0, room)
        left, whole = np.prod(high - low), np.prod(np.ptp(cut.points(points), axis=0))
        if np.ptp(inside, axis=0).min() > 0 and left > 0 and left >= min_visible * whole:
            ends = (low / room)[::-1], (high / room)[::-1]
            visible.append(Seen(shape, np.clip(np.concatenate(ends), 0, 1)))
    return visible


def paint(cut: Cut, image_size: Size, seen: Sequence[Seen], values: Sequence[int]) -> Pixels:
    """Paint the objects visible in a cut into one mask, smaller ones over larger ones.

    Args:
        cut: part of the resized image.
        image_size: (height, width) of the resized image; nothing is painted outside it.
        seen: from `seen_through`.
        values: their mask values, 1 to 255.

    Returns:
        uint8 [height, width] of the cut; 0 is background.

    Raises:
        ValueError: a value is above 255.
    """
    if max(values, default=0) > _MASK_MAX:
        raise ValueError(
            f"{max(values)} objects do not fit a mask of 8 bits (at most {_MASK_MAX}); leave "
            'small ones out with min_area, or set "mask": "classes"'
        )
    canvas = np.zeros(cut.size, np.uint8)
    order = sorted(range(len(seen)), key=lambda number: -seen[number].shape.annotated.area)
    for number in order:
        canvas[_drawn(cut, seen[number].shape)] = values[number]
    if cut.degrees:
        canvas[take(np.ones(image_size, np.uint8), cut, nearest=True, mirror=False) == 0] = 0
    return canvas


def _drawn(cut: Cut, shape: Shape) -> npt.NDArray[np.bool_]:
    """The object's mask in the cut; without an outline, its box."""
    if shape.mask is not None:
        return take(shape.mask, cut, nearest=True, mirror=False).astype(bool)
    polygons = [cut.points(points).ravel().tolist() for points in shape.polygons or [shape.corners]]
    runs = _coco_mask().merge(_coco_mask().frPyObjects(polygons, *cut.size))
    return _pixels(runs).astype(bool)
