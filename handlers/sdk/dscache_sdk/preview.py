"""A contact sheet of examples, as training will see them. Needs Pillow."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dscache_sdk.features.base import Feature
from dscache_sdk.features.basic import BBoxes, ClassLabel, Scalar, Text
from dscache_sdk.features.image import Image
from dscache_sdk.features.labels import ClassLabels

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

CELL_PIXELS = 192
_GAP_PIXELS = 8
_LINE_PIXELS = 14
_MAX_CAPTION_LINES = 3
_BACKGROUND = (250, 250, 250)
_INK = (40, 40, 40)
_BOX = (255, 64, 0)
_MAX_NUMBERED = 32  # a mask without higher values contains numbers, not grey levels
_GOLDEN = 0.618034


def contact_sheet(
    examples: Sequence[Mapping[str, Any]],
    features: Mapping[str, Feature],
    columns: int | None = None,
) -> PilImage:
    """Draw decoded examples side by side, labels and ids under them, statistics at the bottom.

    Args:
        examples: as `iter_examples` yields them.
        features: the features of the examples. All images of an example stand next to each other,
            masks (of one channel) after the others. Boxes are drawn into the first image, with the
            names of their classes if there are `ClassLabels`. A mask of small numbers (classes,
            instances) is shown in colours.
        columns: examples per row; by default the sheet is about square.

    Returns:
        An RGB Pillow image. Without examples it contains only the line of statistics.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    cells = [_cell(example, features) for example in examples]
    lines = max((len(caption) for _, caption in cells), default=0)
    cell_width = max((cell.width for cell, _ in cells), default=CELL_PIXELS)
    across = columns or max(1, round(math.sqrt(len(cells) * CELL_PIXELS / cell_width)))
    across = max(1, min(across, len(cells) or 1))
    width = across * (cell_width + _GAP_PIXELS) + _GAP_PIXELS
    step = CELL_PIXELS + lines * _LINE_PIXELS + _GAP_PIXELS
    rows = math.ceil(len(cells) / across)
    text = statistics(examples, features)
    width = max(width, 7 * len(text) + 2 * _GAP_PIXELS)
    height = rows * step + _LINE_PIXELS + 3 * _GAP_PIXELS
    sheet = PillowImage.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, (cell, caption) in enumerate(cells):
        left = _GAP_PIXELS + number % across * (cell_width + _GAP_PIXELS)
        top = _GAP_PIXELS + number // across * step
        sheet.paste(cell, (left, top))
        for line, words in enumerate(caption):
            draw.text((left, top + CELL_PIXELS + line * _LINE_PIXELS), words, fill=_INK)
    draw.text((_GAP_PIXELS, rows * step + _GAP_PIXELS), text, fill=_INK)
    return sheet


def statistics(examples: Sequence[Mapping[str, Any]], features: Mapping[str, Feature]) -> str:
    """One line: the number of examples; sizes, mean and deviation of the first image feature; the
    number of classes of the first label."""
    parts = [f"{len(examples)} examples"]
    for name in _images(features)[:1]:
        parts += _image_statistics([example[name] for example in examples])
    for name in _names(features, ClassLabel)[:1]:
        seen = len({int(example[name]) for example in examples})
        parts.append(f"{name}: {seen} classes")
    return ", ".join(parts)


def _image_statistics(images: list[npt.NDArray[np.uint8]]) -> list[str]:
    if not images:
        return []
    shapes = sorted({"x".join(map(str, image.shape)) for image in images})
    sizes = shapes[0] if len(shapes) == 1 else f"{shapes[0]} to {shapes[-1]}"
    mean = sum(float(image.mean()) for image in images) / len(images)
    deviation = sum(float(image.std()) for image in images) / len(images)
    return [sizes, f"mean {mean:.0f}", f"deviation {deviation:.0f}"]


def _names(features: Mapping[str, Feature], *kinds: type[Feature]) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, kinds)]


def _images(features: Mapping[str, Feature]) -> list[str]:
    """Names of the image features, those in colour before masks and mattes."""
    images = {name: item for name, item in features.items() if isinstance(item, Image)}
    return sorted(images, key=lambda name: images[name].shape[2] == 1)


def _cell(
    example: Mapping[str, Any], features: Mapping[str, Feature]
) -> tuple[PilImage, list[str]]:
    from PIL import Image as PillowImage

    names = _images(features)
    thumbs = [_thumb(example[name], place > 0) for place, name in enumerate(names)]
    for name in _names(features, BBoxes)[:1]:
        for thumb in thumbs[:1]:
            _draw_boxes(thumb, example[name], _labels_of_boxes(example, features))
    cell = PillowImage.new("RGB", (CELL_PIXELS * max(1, len(thumbs)), CELL_PIXELS), _BACKGROUND)
    for place, thumb in enumerate(thumbs):
        left = place * CELL_PIXELS + (CELL_PIXELS - thumb.width) // 2
        cell.paste(thumb, (left, (CELL_PIXELS - thumb.height) // 2))
    return cell, _caption(example, features)[:_MAX_CAPTION_LINES]


def _thumb(pixels: npt.NDArray[np.uint8], beside: bool) -> PilImage:
    from PIL import Image as PillowImage

    scale = CELL_PIXELS / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    if pixels.shape[2] > 1:
        return PillowImage.fromarray(pixels).resize(size).convert("RGB")
    flat = pixels[:, :, 0]
    if beside and 0 < flat.max() <= _MAX_NUMBERED:
        coloured = PillowImage.fromarray(_palette()[flat])
        return coloured.resize(size, PillowImage.Resampling.NEAREST)
    return PillowImage.fromarray(flat).resize(size).convert("RGB")


def _palette() -> npt.NDArray[np.uint8]:
    """RGB colours for the numbers of a mask: 0 is black, successive numbers differ clearly."""
    colours = [colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.7, 1) for number in range(_MAX_NUMBERED)]
    return np.array([(0, 0, 0), *colours]).dot(255).astype(np.uint8)


def _draw_boxes(thumb: PilImage, boxes: npt.NDArray[np.float32], labels: list[str]) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(thumb)
    width, height = thumb.width - 1, thumb.height - 1
    for top, left, bottom, right in boxes.tolist():
        draw.rectangle((left * width, top * height, right * width, bottom * height), outline=_BOX)
    for (top, left, _, _), words in zip(boxes.tolist(), labels, strict=False):
        place = (left * width + 2, min(top * height, height - _LINE_PIXELS))
        draw.text(place, words, fill=_BOX)


def _labels_of_boxes(example: Mapping[str, Any], features: Mapping[str, Feature]) -> list[str]:
    for name, feature in features.items():
        if isinstance(feature, ClassLabels):
            return [feature.label.name_of(int(number)) for number in example[name]]
    return []


def _caption(example: Mapping[str, Any], features: Mapping[str, Feature]) -> list[str]:
    lines = []
    for name in _names(features, ClassLabel, ClassLabels, Text, Scalar):
        feature, value = features[name], example[name]
        if isinstance(feature, ClassLabels):
            lines.append(_counted([feature.label.name_of(int(number)) for number in value]))
            continue
        if isinstance(feature, ClassLabel):
            value = feature.name_of(int(value))
        text = f"{value:.4g}" if isinstance(value, np.floating) else str(value)
        lines.append(_short(text if isinstance(feature, ClassLabel | Text) else f"{name} {text}"))
    return lines


def _counted(words: list[str]) -> str:
    """`dog, 2 person`, shortened at the end."""
    counts = {word: words.count(word) for word in sorted(set(words))}
    text = ", ".join(word if count == 1 else f"{count} {word}" for word, count in counts.items())
    limit = CELL_PIXELS // 6
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _short(text: str, limit: int = CELL_PIXELS // 6) -> str:
    """The text, shortened at the start: the end of a path matters most."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"...{text[3 - limit :]}"
