"""Write and read features.json of TFDS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dscache_sdk.errors import FeatureError
from dscache_sdk.features.base import TFDS_FEATURES, Feature, Shape
from dscache_sdk.features.basic import BBoxes, ClassLabel, Scalar, Tensor, Text
from dscache_sdk.features.image import RAW_MARK, Image
from dscache_sdk.features.labels import ClassLabels

_MAX_DIMENSIONS, _MAX_SIZE = 32, 2**31 - 1


def features_to_json(features: Mapping[str, Feature]) -> str:
    """The content of features.json, for TFDS and `features_from_json`."""
    described = {name: features[name].tfds_json() for name in sorted(features)}
    whole = {
        "pythonClassName": TFDS_FEATURES + "features_dict.FeaturesDict",
        "featuresDict": {"features": described},
    }
    return json.dumps(whole, indent=4, sort_keys=True, ensure_ascii=False) + "\n"


def features_from_json(text: str | bytes) -> dict[str, Feature]:
    """Parse a features.json from `features_to_json`, or from TFDS with the same kinds of features.

    Raises:
        FeatureError: not such a file, or a kind of feature that this SDK does not support.
    """
    try:
        described = json.loads(text)["featuresDict"]["features"]
        items = sorted(described.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FeatureError(f"not a features.json with a FeaturesDict: {error}") from error
    return {name: _feature(name, item) for name, item in items}


def _feature(name: str, described: Any) -> Feature:
    try:
        return _FROM_JSON[_kind(described)](described)
    except KeyError as error:
        kind = described.get("pythonClassName", "?")
        raise FeatureError(f"this SDK does not support features of {kind}", name) from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FeatureError(f"invalid description: {error}", name) from error
    except FeatureError as error:
        raise FeatureError(error.message, name) from error


def _kind(described: dict[str, Any]) -> str:
    return str(described["pythonClassName"]).rpartition(".")[2]


def _shape(content: dict[str, Any]) -> Shape:
    sizes = [int(size) for size in content.get("shape", {}).get("dimensions", [])]
    if len(sizes) > _MAX_DIMENSIONS or max(sizes, default=0) > _MAX_SIZE:
        raise FeatureError(f"no array has the shape {str(sizes)[:80]}")
    return tuple(None if size < 0 else size for size in sizes)


def _image(described: dict[str, Any]) -> Feature:
    content = described["image"]
    if content.get("dtype", "uint8") != "uint8":
        raise FeatureError(f"images of {content['dtype']} are not supported")
    return Image(content.get("encodingFormat") or "png", _shape(content))


def _tensor(described: dict[str, Any]) -> Feature:
    content = described["tensor"]
    shape, encoding = _shape(content), content.get("encoding") or "none"
    if described.get("description") == RAW_MARK:
        return Image("raw", shape)
    if not shape and encoding == "bytes":
        return Scalar(content["dtype"])
    return Tensor(shape, content["dtype"], encoding)


def _scalar(described: dict[str, Any]) -> Feature:
    return Scalar(described["tensor"]["dtype"])


def _class_label(described: dict[str, Any]) -> ClassLabel:
    if "jsonFeature" in described:
        return ClassLabel(**json.loads(described["jsonFeature"]["json"]))
    return ClassLabel(num_classes=int(described["classLabel"]["numClasses"]))


def _sequence(described: dict[str, Any]) -> Feature:
    inner = described["sequence"]["feature"]
    kind = _kind(inner)
    if kind == "BBoxFeature":
        return BBoxes()
    if kind == "ClassLabel":
        label = _class_label(inner)
        counted = None if label.names is not None else label.num_classes
        return ClassLabels(label.names, num_classes=counted)
    raise FeatureError("sequences other than of boxes and class labels are not supported")


_FROM_JSON = {
    "Image": _image,
    "Tensor": _tensor,
    "Scalar": _scalar,
    "Text": lambda _: Text(),
    "ClassLabel": _class_label,
    "Sequence": _sequence,
}
