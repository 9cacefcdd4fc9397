"""Check that the packages of a local stack are installed: the extra `dscache[up]`, and a builder.

Imports none of them.
"""

from __future__ import annotations

import importlib.util

from .errors import StackError

MODULES = ("filelock", "minio", "tomli_w")  # of the extra `up` in pyproject.toml
BUILDER = "dscache_builder"


def require_installed(*, builder: bool) -> None:
    """Raise StackError with the command that installs what is missing."""
    missing = []
    if not all(map(_is_installed, MODULES)):
        missing.append('"dscache[up]"')
    if builder and not _is_installed(BUILDER):
        missing.append("dscache-builder")
    if missing:
        raise StackError(
            "a local stack needs packages that are not installed for this Python: "
            f"pip install {' '.join(missing)}"
            + (
                " (or use --no-builder to start only the store)"
                if missing == ["dscache-builder"]
                else ""
            )
        )


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
