"""What a caller may name a dataset by: a spec, its members, a file, a key, a topic. Light."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import canonical
from .canonical import split_key
from .errors import SpecError

if TYPE_CHECKING:
    from .spec import Spec

    What = Spec | Mapping[str, Any] | str | os.PathLike[str]


def spec_of(what: What) -> Spec:
    """The spec that a Spec, its members as a dict, or a file's path tells. Raises SpecError."""
    from .spec import Spec

    return what if isinstance(what, Spec) else Spec(**members_of(what))


def members_of(what: What) -> dict[str, Any]:
    """The checked members of a spec, for its key; light. Raises SpecError."""
    if isinstance(what, Mapping):
        return canonical.members_of(what)
    if isinstance(what, (str, os.PathLike)):
        return canonical.load(Path(what))
    from .spec import Spec

    if isinstance(what, Spec):
        return what.members
    raise SpecError(f"expected a config file, a dict or a Spec, got {type(what).__name__}")


def named_key(what: What) -> str | None:
    """The key that a key or a topic names; None for everything else."""
    if not isinstance(what, str):
        return None
    key = what.rpartition(".")[0] if is_topic(what) else what
    return key if split_key(key) else None


def is_topic(text: str) -> bool:
    """Whether `text` is `<key>.<nonce>`."""
    key, _, nonce = text.rpartition(".")
    return bool(nonce) and split_key(key) is not None
