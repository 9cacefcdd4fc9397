"""Fixtures of the hostile tests: those of whole programs, and raw data of record files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dscache_sdk.example import encode_example
from dscache_sdk.records import RecordWriter
from support.system import (
    new_builder,
    numbers,
    pythons,
    request_for,
    shared_environments,
    wheelhouse,
)

__all__ = [
    "new_builder",
    "numbers",
    "pythons",
    "request_for",
    "shared_environments",
    "wheelhouse",
]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Raw data that consists of record files, as somebody keeps it who has made them before."""
    folder = tmp_path / "raw" / "records"
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        with RecordWriter(folder / f"ready-{split}.tfrecord") as writer:
            writer.write(encode_example({"number": number}))
    return folder
