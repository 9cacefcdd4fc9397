"""The command line. `dscache get` of what is cached here answers before click is imported."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .group import cli

__all__ = ["cli", "main"]

GARBAGE_OBJECTS = 50_000  # importing leaves next to none; looking every 700 takes an eighth of it


def main() -> None:
    """Entry point of `dscache`."""
    gc.set_threshold(GARBAGE_OBJECTS)
    path = _hit(sys.argv[1:])
    if path is not None:
        try:
            print(path, flush=True)  # noqa: T201  there is no click yet, whose echo it would be
        except OSError as error:
            from .group import end_of

            end_of(error)
        return
    from .group import run

    run()


def _hit(words: list[str]) -> Path | None:
    """The path that `dscache get CONFIG` (with no option) prints, if the dataset is cached.

    Importing click takes as long as all of this. Whatever is not a plain hit, errors included, is
    left to the command, which begins anew.
    """
    if len(words) != 2 or words[0] != "get" or words[1].startswith("-"):
        return None
    from .. import canonical, config
    from ..cache.cache import Cache
    from ..errors import DscacheError

    name = words[1]
    try:
        if canonical.split_key(name):
            key = name
        elif Path(name).is_file():  # a pipe can be read once only, and a miss reads it again
            key = canonical.key_of(canonical.load(name))
        else:
            return None
        settings = config.load()
        path = Cache(settings.home, shared=settings.shared_homes).find(key)
    except (DscacheError, OSError):
        return None
    return path and path.absolute()


def __getattr__(name: str) -> Any:
    """`cli`, the click group, is loaded when it is asked for (PEP 562)."""
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .group import cli

    return cli
