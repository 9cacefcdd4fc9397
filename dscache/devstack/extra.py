"""What a local stack needs besides the client: the extra `dscache[up]`, and a builder.

Imports none of it, so that it can say what is missing.
"""

from __future__ import annotations

import importlib.util

from .errors import StackError

MODULES = ("filelock", "minio", "tomli_w")  # the extra `up` of pyproject.toml
BUILDER = "dscache_builder"


def require_installed(*, builder: bool) -> None:
    """Raise StackError with the command that installs what is missing."""
    missing = []
    if not all(map(_installed, MODULES)):
        missing.append('"dscache[up]"')
    if builder and not _installed(BUILDER):
        missing.append("dscache-builder")
    if missing:
        raise StackError(
            "a local stack needs packages that are not installed for this Python: "
            f"pip install {' '.join(missing)}"
            + (" (or --no-builder, for the store alone)" if missing == ["dscache-builder"] else "")
        )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
