"""Features: the values of an example, their encoding, and features.json."""

from dscache_sdk.features.base import Feature
from dscache_sdk.features.basic import BBoxes, ClassLabel, Scalar, Tensor, Text
from dscache_sdk.features.image import Image
from dscache_sdk.features.infer import infer_features
from dscache_sdk.features.labels import ClassLabels
from dscache_sdk.features.tfds_json import features_from_json, features_to_json

__all__ = [
    "BBoxes",
    "ClassLabel",
    "ClassLabels",
    "Feature",
    "Image",
    "Scalar",
    "Tensor",
    "Text",
    "features_from_json",
    "features_to_json",
    "infer_features",
]
