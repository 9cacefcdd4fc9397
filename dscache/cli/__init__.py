"""The command line. `dscache get` of what is cached here answers before click is imported."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .group import cli

COMMANDS = {
    "get": "get",
    "request": "get",
    "wait": "get",
    "run": "get",
    "cancel": "look",
    "status": "look",
    "ls": "ls",
    "show": "look",
    "url": "look",
    "logs": "look",
    "preview": "look",
    "verify": "verify",
    "cache": "cache",
    "up": "stack",
    "down": "stack",
    "doctor": "doctor",
}
__all__ = ["COMMANDS", "cli", "main"]

GARBAGE_OBJECTS = 50_000  # importing leaves next to none; looking every 700 takes an eighth of it


def main() -> None:
    """Entry point of `dscache`."""
    gc.set_threshold(GARBAGE_OBJECTS)
    path = _hit(sys.argv[1:])
    if path is not None:
        print(path)  # noqa: T201  there is no click yet, whose echo it would be
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
    from ..cache import Cache
    from ..errors import DscacheError

    name = words[1]
    try:
        key = name if canonical.split_key(name) else canonical.key_of(canonical.load(name))
        settings = config.load()
        return Cache(settings.home, shared=settings.shared_homes).find(key)
    except DscacheError:
        return None


def __getattr__(name: str) -> Any:
    """`cli`, the click group, is loaded when it is asked for (PEP 562)."""
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .group import cli

    return cli
