"""The decoders of the SDK and of the handlers that come with it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from dataset_handlers import Coco, Photos, coco_index
from dataset_handlers.coco_shapes import shapes_of
from dataset_handlers.layers import read_cutout
from dataset_handlers.run_lengths import mask_of
from dscache_sdk import OptionsError, RawDataError, SampleError
from dscache_sdk.codec import decode_example, encode_example
from dscache_sdk.errors import FeatureError, RecordError
from dscache_sdk.example import compile_encoder, decode_features
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
from dscache_sdk.images import open_mask, read_rgb, upright_size
from dscache_sdk.options import parse_options
from dscache_sdk.plain import plain_splits
from dscache_sdk.records import RecordWriter, count_records, read_records
from dscache_sdk.tfds import parse_shard_name, shard_name
from fuzz.inputs import FOLDER, drained, in_file, text, value
from fuzz.running import Decoder

HEIGHT, WIDTH = 12, 16
PIXELS = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
FEATURES: dict[str, Feature] = {
    "boxes": BBoxes(),
    "double": Scalar("float64"),
    "file": Image("jpeg", (None, None, 3)),
    "flags": Tensor((None,), "bool"),
    "free": Tensor((None, None), "int16"),
    "label": ClassLabel(["a", "b"]),
    "labels": ClassLabels(num_classes=3),
    "mask": Image("png", (HEIGHT, WIDTH, 1)),
    "numbers": Tensor((2, 2), "float32"),
    "raw": Image("raw", (None, None, 3)),
    "text": Text(),
    "unsigned": Scalar("uint64"),
    "words": Tensor((None,), "string"),
}
EXAMPLE: dict[str, Any] = {
    "boxes": [[0.0, 0.0, 0.5, 1.0]],
    "double": 0.5,
    "file": PIXELS,
    "flags": [True, False],
    "free": np.ones((2, 3), np.int16),
    "label": "b",
    "labels": [0, 2],
    "mask": PIXELS[:, :, :1],
    "numbers": np.ones((2, 2), np.float32),
    "raw": PIXELS,
    "text": "é",
    "unsigned": 2**64 - 1,
    "words": ["a", b"\xff"],
}
RECORD = compile_encoder(FEATURES)(EXAMPLE)
RUNS: dict[str, Any] = {"size": [HEIGHT, WIDTH], "counts": [10, 20, HEIGHT * WIDTH - 30]}
PACKED = ":d0R5"  # the same lengths
OUTLINES: tuple[Any, ...] = (
    [[1.0, 2.0, 9.0, 2.0, 5.0, 8.0]],
    RUNS,
    {**RUNS, "counts": PACKED},
    [],
)
INSTANCES: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
    "annotations": [
        {"id": number, "image_id": 1, "category_id": 7, "bbox": [1.0, 2.0, 8.0, 6.0], "area": 48.0,
         "iscrowd": 0, "segmentation": outline}
        for number, outline in enumerate(OUTLINES)
    ],
    "categories": [{"id": 7, "name": "dog"}],
}  # fmt: skip


def _file(encoding: str, pixels: Any = PIXELS) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, encoding)
    return buffer.getvalue()


def _record_file(records: list[bytes]) -> bytes:
    path = FOLDER / "made.tfrecord"
    with RecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path.read_bytes()


def _records(data: bytes) -> None:
    path = in_file("a.tfrecord", data)
    drained(read_records(path))
    count_records(path)


def _unverified(data: bytes) -> None:
    drained(read_records(in_file("a.tfrecord", data), verify=False))


def _inferred(data: bytes) -> None:
    features_from_json(features_to_json(infer_features(data)))


def _features(data: bytes) -> None:
    features = features_from_json(text(data))
    features_to_json(features)
    decode_features(RECORD, features)


def _coco(data: bytes) -> None:
    """An annotation file: every sample that it gives, made into an example."""
    in_file("coco/train/_annotations.coco.json", data)
    attributes = ["boxes", "id", "image", "is_crowd", "labels", "mask"]
    options = {"input_attributes": attributes, "image_size": None, "crowd": True}
    handler = Coco(options, str(FOLDER / "coco"))
    for sample in handler.samples()[:20]:
        json.dumps(sample.data)
        try:
            loaded = handler.load(sample)
            handler.example(loaded, sample, np.random.default_rng(0))
        except ValueError:  # what the SDK reports as a bad sample
            continue


def _outline(data: bytes) -> None:
    outline = text(data)
    annotated = coco_index.AnnotatedObject(0, False, [1.0, 2.0, 8.0, 6.0], 48.0, outline)
    shapes_of(coco_index.AnnotatedImage(HEIGHT, WIDTH, [annotated]), (20, 20), "contain")


def _options(data: bytes) -> None:
    for handler in (Photos, Coco):
        try:
            parse_options(handler.Options, value(data))
        except OptionsError as error:
            str(error).encode("utf-8", "backslashreplace")


def _picture(data: bytes) -> None:
    path = in_file("a.png", data)
    for read in (read_rgb, open_mask, upright_size, read_cutout):
        try:
            read(path)
        except (OSError, ValueError):
            continue


def _image(encoding: str, data: bytes) -> None:
    for shape in ((None, None, 3), (HEIGHT, WIDTH, 3), (None, None, 1)):
        try:
            Image(encoding, shape).decode([data])
        except FeatureError:
            continue


def _names(data: bytes) -> None:
    parse_shard_name(text(data))
    plain_splits([text(data)])


def table() -> list[Decoder]:
    """The decoders of `dscache_sdk` and `dataset_handlers`."""
    in_file("coco/train/a.png", _file("PNG"))
    plain = {"a": b"bytes", "n": [1, 2, 2**40], "f": [0.5], "e": []}
    records = [encode_example(plain), RECORD]
    handler_options = {"image_size": [64, 64], "rotation": 10, "input_attributes": ["image"]}
    damaged = (RecordError, FeatureError)
    return [
        Decoder(
            "record", decode_example, (RecordError,), tuple(records), "binary",
            ("dscache_sdk.codec.decode_example", "dscache_sdk.wire.read_varint"),
        ),
        Decoder(
            "example", lambda data: decode_features(data, FEATURES), damaged, (RECORD,), "binary",
            ("dscache_sdk.example.decode_features",),
        ),
        Decoder("inferred-features", _inferred, damaged, tuple(records), "binary", ()),
        Decoder(
            "record-file", _records, (RecordError,), (_record_file(records),), "binary",
            ("dscache_sdk.records.read_records",),
        ),
        Decoder(
            "record-file-unverified", _unverified, (RecordError,), (_record_file(records),),
            "binary", (),
        ),
        Decoder(
            "features", _features, damaged, (features_to_json(FEATURES).encode(),), "json", ()
        ),
        Decoder(
            "jpeg", lambda data: _image("jpeg", data), (), (_file("JPEG"),), "binary", ()
        ),
        Decoder("png", lambda data: _image("png", data), (), (_file("PNG"),), "binary", ()),
        Decoder(
            "raw-picture", _picture, (),
            (_file("PNG"), _file("JPEG"), _file("GIF"), _file("TIFF"), _file("WEBP"),
             _file("PNG", np.dstack([PIXELS, PIXELS[:, :, :1]]))),
            "binary", ("dscache_sdk.images.read_rgb", "dataset_handlers.layers.read_cutout"),
        ),
        Decoder(
            "shard-name", _names, (), (shard_name("photos", "train", 3, 12).encode(),), "text",
            ("dscache_sdk.tfds.parse_shard_name",),
        ),
        Decoder(
            "options", _options, (), (json.dumps(handler_options).encode(),), "json",
            ("dscache_sdk.options.parse_options",),
        ),
        Decoder(
            "coco-file", _coco, (RawDataError, SampleError), (json.dumps(INSTANCES).encode(),),
            "json", ("dataset_handlers.coco_index.read_instances",),
        ),
        Decoder(
            "coco-outline", _outline, (ValueError,),
            tuple(json.dumps(one["segmentation"]).encode() for one in INSTANCES["annotations"]),
            "json", (),
        ),
        Decoder(
            "run-lengths", lambda data: mask_of(value(data), (HEIGHT, WIDTH)), (ValueError,),
            (json.dumps(RUNS).encode(),), "json", (),
        ),
    ]  # fmt: skip
