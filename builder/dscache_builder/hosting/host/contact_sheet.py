"""Draw the contact sheet from a few records."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

from dscache_sdk.features import infer_features
from dscache_sdk.preview import contact_sheet, statistics
from dscache_sdk.reading import iter_examples
from dscache_sdk.records import read_records

from .failures import HostFailure
from .loaded_handler import LoadedHandler


def check_can_draw() -> None:
    """Raise HostFailure if the environment lacks Pillow, before any sample is made."""
    if importlib.util.find_spec("PIL") is None:
        raise HostFailure("handler", "no preview: the handler's package must require Pillow")


def draw_sheet(records: Path, loaded: LoadedHandler, count: int, to: str) -> str:
    """Write a PNG of the first `count` examples to `to`; return one line of statistics.

    Raises HostFailure if no records were written.
    """
    if not records.is_file():
        raise HostFailure("handler", "no preview: no records were written yet")
    if loaded.plain:
        features = infer_features(*read_records(records))
    else:
        features = dict(loaded.handler.features)
    examples = list(itertools.islice(iter_examples([records], features), count))
    contact_sheet(examples, features).save(to, format="PNG")
    return statistics(examples, features)
