"""The spec a user writes, its canonical form, and its key. Pure; no network.

The canonical form is RFC 8785 (JSON Canonicalization Scheme) of the spec's members and no others;
the key is ``<dataset_name>_<handler_version>_<first 32 hex digits of SHA-256(canonical form)>``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from .errors import SpecError

MAX_FILE_BYTES = 1 << 20
MAX_NESTING = 64
MAX_INTEGER = 2**53 - 1  # RFC 8785 and RFC 7493: 2^53 reads like 2^53 + 1 in many parsers
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
HANDLER_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,62}")
KEY = re.compile(rf"({DATASET_NAME.pattern})_({HANDLER_VERSION.pattern})_([0-9a-f]{{32}})")
MEMBERS = ("dataset_name", "handler_version", "dataset_config", "dataset_revision")


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a user asks for. Build one with `Spec.of`, `load_spec` or `parse_spec`: they check it.

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
        import rfc8785

        return rfc8785.dumps(_members(self))

    @property
    def key(self) -> str:
        """The identity of this spec: `<dataset_name>_<handler_version>_<32 hex digits>`."""
        digest = hashlib.sha256(self.canonical).hexdigest()[:32]
        return f"{self.dataset_name}_{self.handler_version}_{digest}"


def _members(spec: Spec) -> dict[str, Any]:
    members: dict[str, Any] = {
        "dataset_name": spec.dataset_name,
        "handler_version": spec.handler_version,
        "dataset_config": spec.dataset_config,
    }
    if spec.dataset_revision is not None:
        members["dataset_revision"] = spec.dataset_revision
    return members


def load_spec(path: str | Path) -> Spec:
    """Read a spec from a JSON file. Raises SpecError naming the file and the place in it."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(
            f"{path}: no such file; write a config there (see `dscache init`)"
        ) from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_spec(text, where=str(path))


def parse_spec(text: bytes | str, *, where: str = "config") -> Spec:
    """Parse and check the JSON text of a spec. Raises SpecError; `where` begins its message."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MAX_FILE_BYTES:
        raise SpecError(f"{where}: larger than 1 MiB; a spec describes a dataset, it is not one")
    try:
        document = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise SpecError(f"{where}: not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise SpecError(
            f"{where}: not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise SpecError(f"{where}: nested deeper than {MAX_NESTING} levels") from None
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise SpecError(f"{where}: {error}") from None
    return from_members(document, where=where)


def from_members(document: Any, *, where: str = "") -> Spec:
    """Check a decoded spec (a dict of the members) and return it canonical. Raises SpecError."""
    prefix = f"{where}: " if where else ""
    try:
        return _checked(document)
    except SpecError as error:
        raise SpecError(f"{prefix}{error}") from None


def split_key(key: str) -> tuple[str, str, str] | None:
    """Return (dataset_name, handler_version, hash) of a key, or None when it is not one."""
    match = KEY.fullmatch(key)
    return (match[1], match[2], match[3]) if match else None


def _checked(document: Any) -> Spec:
    if not isinstance(document, Mapping):
        raise SpecError(f"expected an object with {_listed(MEMBERS[:3])}, got {_kind(document)}")
    unknown = [name for name in document if name not in MEMBERS]
    if unknown:
        raise SpecError(
            f"unknown member {unknown[0]!r}; a spec has {_listed(MEMBERS[:3])} "
            f"(options of the handler belong inside dataset_config)"
        )
    missing = [name for name in MEMBERS[:3] if name not in document]
    if missing:
        raise SpecError(f"member {missing[0]!r} is missing")
    _check_text(document, "dataset_name", DATASET_NAME, "lower-case letters, digits and '-'")
    _check_text(document, "handler_version", HANDLER_VERSION, "letters, digits, '.', '+' and '-'")
    revision = document.get("dataset_revision")
    if "dataset_revision" in document and (not isinstance(revision, str) or not revision):
        raise SpecError(f"dataset_revision: expected a non-empty string, got {_kind(revision)}")
    if not isinstance(document["dataset_config"], Mapping):
        raise SpecError(
            "dataset_config: expected an object of options, "
            f"got {_kind(document['dataset_config'])}"
        )
    if revision is not None:
        _canonical(revision, "dataset_revision", 1)
    return Spec(
        dataset_name=document["dataset_name"],
        handler_version=document["handler_version"],
        dataset_config=_canonical(document["dataset_config"], "dataset_config", 1),
        dataset_revision=revision,
    )


def _check_text(document: Mapping[str, Any], name: str, pattern: re.Pattern[str], of: str) -> None:
    value = document[name]
    if not isinstance(value, str):
        raise SpecError(f"{name}: expected a string, got {_kind(value)}")
    if not pattern.fullmatch(value):
        raise SpecError(
            f"{name}: {value!r} is not allowed; use 1 to 63 of {of}, "
            f"beginning with a letter or a digit"
        )


def _canonical(value: Any, place: str, depth: int) -> Any:
    """Return `value` as it reads after a round trip through its canonical form."""
    if depth > MAX_NESTING:
        raise SpecError(f"nested deeper than {MAX_NESTING} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _canonical_text(value, place)
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise SpecError(f"{place}: integer {value} is beyond ±(2^53 - 1); write it as a string")
        return int(value)
    if isinstance(value, float):
        return _canonical_float(value, place)
    if isinstance(value, Mapping):
        return _canonical_object(value, place, depth)
    if isinstance(value, (list, tuple)):
        return [_canonical(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise SpecError(f"{place}: {_kind(value)} is not a JSON value")


def _canonical_text(value: str, place: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise SpecError(f"{place}: contains a lone surrogate, which is not text") from None
    return str(value)


def _canonical_float(value: float, place: str) -> int | float:
    if not math.isfinite(value):
        raise SpecError(f"{place}: {value} is not a JSON number")
    if value.is_integer():
        if abs(value) > MAX_INTEGER:
            raise SpecError(f"{place}: {value!r} is beyond ±(2^53 - 1); write it as a string")
        return int(value)
    return float(value)


def _canonical_object(value: Mapping[Any, Any], place: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in value:
        if not isinstance(name, str):
            raise SpecError(f"{place}: member name {name!r} is not a string")
        _canonical_text(name, place)
    for name in sorted(value, key=lambda text: text.encode("utf-16-be")):
        result[str(name)] = _canonical(value[name], f"{place}.{name}", depth + 1)
    return result


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise SpecError(f"member {name!r} appears twice in one object")
        seen[name] = value
    return seen


def _no_constant(name: str) -> NoReturn:
    raise SpecError(f"{name} is not a JSON number")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    kind = names.get(type(value))
    return kind or f"{type(value).__name__} {value!r}"[:80]
