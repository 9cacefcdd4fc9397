"""The SDK for dataset handlers: the base class, the features, the record codec."""

from dscache_sdk.errors import (
    FeatureError,
    HandlerContractError,
    HandlerError,
    OptionsError,
    RawDataError,
    RecordError,
    SampleError,
)
from dscache_sdk.features import (
    BBoxes,
    ClassLabel,
    ClassLabels,
    Feature,
    Image,
    Scalar,
    Tensor,
    Text,
    features_from_json,
    features_to_json,
    infer_features,
)
from dscache_sdk.handler import DatasetHandler
from dscache_sdk.images import crop, read_rgb
from dscache_sdk.plan import Plan, ShardPlan, ShardStats
from dscache_sdk.rawdata import RawData
from dscache_sdk.samples import Sample, hash_split

__all__ = [
    "BBoxes",
    "ClassLabel",
    "ClassLabels",
    "DatasetHandler",
    "Feature",
    "FeatureError",
    "HandlerContractError",
    "HandlerError",
    "Image",
    "OptionsError",
    "Plan",
    "RawData",
    "RawDataError",
    "RecordError",
    "Sample",
    "SampleError",
    "Scalar",
    "ShardPlan",
    "ShardStats",
    "Tensor",
    "Text",
    "crop",
    "features_from_json",
    "features_to_json",
    "hash_split",
    "infer_features",
    "read_rgb",
]
