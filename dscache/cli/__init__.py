"""The command line. `dscache get` of a cached dataset answers before click is imported."""

from __future__ import annotations

import gc
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .group import cli

__all__ = ["cli", "main"]

GC_THRESHOLD = 50_000  # imports leave little garbage; the default of 700 costs an eighth of a hit


def main() -> None:
    """Entry point of `dscache`."""
    gc.set_threshold(GC_THRESHOLD)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a path need not be UTF-8
    path = _hit(sys.argv[1:])
    if path is not None:
        from ..terminal import print_path

        try:
            print_path(path)
        except OSError as error:
            from .group import exit_with

            exit_with(error)
        return
    from .group import run

    run()


def _hit(arguments: list[str]) -> Path | None:
    """Return the path that `dscache get CONFIG` (without options) prints if the dataset is cached.

    Importing click alone would take as long. Everything else, errors included, is left to the
    command, which starts from the beginning.
    """
    if len(arguments) != 2 or arguments[0] != "get" or arguments[1].startswith("-"):
        return None
    from .. import canonical, config
    from ..cache.cache import Cache

    name = arguments[1]
    try:
        if canonical.split_key(name):
            key = name
        elif Path(name).is_file():  # not a pipe: a miss reads it again
            key = canonical.key_of(canonical.load(name))
        else:
            return None
        settings = config.load()
        path = Cache(settings.home, shared=settings.shared_homes).find(key)
    except Exception:  # noqa: BLE001  the command meets it again, and reports it
        return None
    return path and path.absolute()


def __getattr__(name: str) -> Any:
    """Load `cli`, the click group, at first use (PEP 562)."""
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .group import cli

    return cli
