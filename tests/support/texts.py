"""A handler whose raw data tell it how to misbehave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from dscache_sdk import DatasetHandler, Sample, Scalar, Text, hash_split
from dscache_sdk.example import encode_example
from support.handlers import Example


class Texts(DatasetHandler, name="my-texts"):
    """Text files with a random number each; the content tells how to misbehave."""

    class Options(msgspec.Struct, kw_only=True):
        batch_size: int | None = None
        variations_per_sample: int = 1
        seed: int = 0
        val: float = 0.0

    features = {"id": Text(), "text": Text(), "drawn": Scalar("float32")}  # noqa: RUF012

    def samples(self) -> Iterable[Sample]:
        for path in self.raw.files("**/*.txt"):
            yield Sample(path, hash_split(path, val=self.options.val))

    def load(self, sample: Sample) -> str:
        return (self.raw / sample.id).read_text("utf-8")

    def example(self, text: str, sample: Sample, rng: np.random.Generator) -> Any:
        drawn = rng.random()
        if text == "drop" or (text == "drop some" and drawn < 0.5):
            return None
        if text == "fail late" and drawn < 0.5:
            raise ZeroDivisionError("oh dear")
        if text == "wrong":
            return {"id": sample.id, "text": 5, "drawn": drawn}
        if text == "foreign":
            return Foreign({"id": sample.id, "text": text, "drawn": drawn})
        if text == "foreign wrong":
            return Foreign({"id": sample.id})
        if text == "list":
            return [1]
        return {"id": sample.id, "text": text, "drawn": drawn}


class Foreign:
    """An example that is a message of somebody else's protocol buffers."""

    def __init__(self, example: Example) -> None:
        self.example = example

    def SerializeToString(self, deterministic: bool | None = None) -> bytes:
        return encode_example(self.example)
