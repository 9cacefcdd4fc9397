"""The spec as a structure. Its canonical form and its key are defined in `canonical`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from . import canonical
from .canonical import (
    DATASET_NAME,
    HANDLER_VERSION,
    KEY,
    MAX_FILE_BYTES,
    MAX_INTEGER,
    MAX_NESTING,
    split_key,
)

__all__ = [
    "DATASET_NAME",
    "HANDLER_VERSION",
    "KEY",
    "MAX_FILE_BYTES",
    "MAX_INTEGER",
    "MAX_NESTING",
    "Spec",
    "from_members",
    "load_spec",
    "parse_spec",
    "split_key",
]


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What identifies a dataset. `Spec.of`, `load_spec` and `parse_spec` make one, and check it.

    `dataset_config` is the decoded canonical form, so 800.0 is the int 800 and members are sorted.
    """

    dataset_name: str
    handler_version: str
    dataset_config: dict[str, Any]
    dataset_revision: str | None = None

    @classmethod
    def of(
        cls,
        dataset_name: str,
        handler_version: str,
        dataset_config: Mapping[str, Any],
        dataset_revision: str | None = None,
    ) -> Spec:
        """Check the members and return the spec in canonical form. Raises SpecError."""
        members: dict[str, Any] = {
            "dataset_name": dataset_name,
            "handler_version": handler_version,
            "dataset_config": dataset_config,
        }
        if dataset_revision is not None:
            members["dataset_revision"] = dataset_revision
        return from_members(members)

    @property
    def canonical(self) -> bytes:
        """RFC 8785 bytes of the members that are present."""
        return canonical.form(self.members)

    @property
    def key(self) -> str:
        """The identity of this spec: `<dataset_name>_<handler_version>_<32 hex digits>`."""
        return canonical.key_of(self.members)

    @property
    def members(self) -> dict[str, Any]:
        """The members that are present, as in the config."""
        members: dict[str, Any] = {
            "dataset_name": self.dataset_name,
            "handler_version": self.handler_version,
            "dataset_config": self.dataset_config,
        }
        if self.dataset_revision is not None:
            members["dataset_revision"] = self.dataset_revision
        return members


def load_spec(path: str | Path) -> Spec:
    """Read a spec from a JSON file. Raises SpecError naming the file and the place in it."""
    return Spec(**canonical.load(path))


def parse_spec(text: bytes | str, *, where: str = "config") -> Spec:
    """Parse and check the JSON text of a spec. Raises SpecError; `where` begins its message."""
    return Spec(**canonical.parse(text, where=where))


def from_members(document: Any, *, where: str = "") -> Spec:
    """Check a decoded spec (a dict of the members) and return it canonical. Raises SpecError."""
    return Spec(**canonical.members_of(document, where=where))
