"""How a caller names a dataset: a spec, its members, a file, a key or a topic.

Light: a cache hit imports this.
"""

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

    DatasetReference = Spec | Mapping[str, Any] | str | os.PathLike[str]


def spec_of(reference: DatasetReference) -> Spec:
    """Return the spec given as a Spec, as a dict of its members, or as a path. Raises SpecError."""
    from .spec import Spec

    return reference if isinstance(reference, Spec) else Spec(**members_of(reference))


def members_of(reference: DatasetReference) -> dict[str, Any]:
    """Return the checked members of a spec, without loading msgspec. Raises SpecError."""
    if isinstance(reference, Mapping):
        return canonical.members_of(reference)
    if isinstance(reference, (str, os.PathLike)):
        return canonical.load(Path(reference))
    from .spec import Spec

    if isinstance(reference, Spec):
        return reference.members
    raise SpecError(f"expected a config file, a dict or a Spec, got {type(reference).__name__}")


def named_key(reference: DatasetReference) -> str | None:
    """Return the key in a key or a topic; None for any other reference."""
    if not isinstance(reference, str):
        return None
    key = reference.rpartition(".")[0] if is_topic(reference) else reference
    return key if split_key(key) else None


def is_topic(text: str) -> bool:
    """Whether `text` is `<key>.<nonce>`."""
    key, _, nonce = text.rpartition(".")
    return bool(nonce) and split_key(key) is not None
