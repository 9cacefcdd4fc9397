"""How bytes become what a decoder takes."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dscache.store.objects import Object
from fuzz.running import NoInput

FOLDER = Path(tempfile.mkdtemp(prefix="dscache-fuzz-"))  # of the files that decoders read
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def text(data: bytes) -> str:
    """The bytes as text, in which anything may occur, lone surrogates included."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def value(data: bytes) -> Any:
    """The value of JSON text, as lenient as Python is."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise NoInput from None


def in_file(name: str, data: bytes) -> Path:
    """A file with these bytes."""
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class OneObject:
    """A bucket in which every object has the same body. It only hands bytes to a decoder."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def get(self, name: str, *, limit_bytes: int = 0) -> Object:
        """The object."""
        return Object(self._body, "etag")

    def now(self) -> float:
        """A time."""
        return 0.0


def drained(items: Iterator[Any]) -> list[Any]:
    """All items of a lazy decoder."""
    return list(items)
