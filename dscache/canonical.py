"""Specs as plain dicts: read and check them, canonicalize them, hash them into keys.

The canonical form is RFC 8785 (JSON Canonicalization Scheme) of the spec's members and no others;
the key is ``<dataset_name>_<handler_version>_<first 32 hex digits of SHA-256(canonical form)>``.

A hit in the local cache needs only the key, so this imports little; `spec.Spec` is the same as a
structure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .errors import SpecError

MAX_FILE_BYTES = 1 << 20
MAX_NESTING = 64
MAX_INTEGER = 2**53 - 1  # RFC 8785 and RFC 7493: many parsers cannot tell 2^53 from 2^53 + 1
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
HANDLER_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,62}")
KEY = re.compile(rf"({DATASET_NAME.pattern})_({HANDLER_VERSION.pattern})_([0-9a-f]{{32}})")
MEMBERS = ("dataset_name", "handler_version", "dataset_config", "dataset_revision")


def form(members: Mapping[str, Any]) -> bytes:
    """Return the RFC 8785 bytes of checked members."""
    import rfc8785

    return rfc8785.dumps(dict(members))


def key_of(members: Mapping[str, Any]) -> str:
    """Return the key of checked members: `<dataset_name>_<handler_version>_<32 hex digits>`."""
    import hashlib

    digest = hashlib.sha256(form(members)).hexdigest()[:32]
    return f"{members['dataset_name']}_{members['handler_version']}_{digest}"


def split_key(key: str) -> tuple[str, str, str] | None:
    """Return (dataset_name, handler_version, hash) of a key, or None when it is not one."""
    match = KEY.fullmatch(key)
    return (match[1], match[2], match[3]) if match else None


def load(path: str | Path) -> dict[str, Any]:
    """Return the checked members of the spec in a JSON file.

    Raises SpecError naming the file and the place in it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(
            f"{path}: not a key, and no such file; "
            f"a config is a JSON object with {_listed(MEMBERS[:3])}"
        ) from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise SpecError(
            f"{_shown(str(path))}: holds a NUL or another character that no file name has"
        ) from None
    return parse(text, where=str(path))


def parse(text: bytes | str, *, where: str = "config") -> dict[str, Any]:
    """Parse and check the JSON text of a spec; return its members.

    Raises SpecError; `where` begins its message.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise SpecError(f"{where}: contains a lone surrogate, which is not text") from None
    if len(raw) > MAX_FILE_BYTES:
        raise SpecError(
            f"{where}: larger than 1 MiB; a spec describes a dataset, it does not contain one"
        )
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
    return members_of(document, where=where)


def members_of(document: Any, *, where: str = "") -> dict[str, Any]:
    """Check a decoded spec and return its members in canonical form.

    So 800.0 is the int 800, and options are sorted. Raises SpecError, whose message begins with
    `where`.
    """
    prefix = f"{where}: " if where else ""
    try:
        return _checked(document)
    except SpecError as error:
        raise SpecError(f"{prefix}{error}") from None


def _checked(document: Any) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise SpecError(f"expected an object with {_listed(MEMBERS[:3])}, got {_kind(document)}")
    unknown = [name for name in document if name not in MEMBERS]
    if unknown:
        raise SpecError(
            f"unknown member {_shown(unknown[0])}; a spec has {_listed(MEMBERS[:3])} "
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
        _canonical(revision, Place(None, "dataset_revision"), 1)
    members = {
        "dataset_name": document["dataset_name"],
        "handler_version": document["handler_version"],
        "dataset_config": _canonical(document["dataset_config"], Place(None, "dataset_config"), 1),
    }
    return members if revision is None else {**members, "dataset_revision": revision}


def _check_text(document: Mapping[str, Any], name: str, pattern: re.Pattern[str], of: str) -> None:
    value = document[name]
    if not isinstance(value, str):
        raise SpecError(f"{name}: expected a string, got {_kind(value)}")
    if not pattern.fullmatch(value):
        raise SpecError(
            f"{name}: {_shown(value)} is not allowed; use 1 to 63 of {of}, "
            f"beginning with a letter or a digit"
        )


class Place(NamedTuple):
    """A place in a spec, e.g. ``dataset_config.crop_size[1]``. It becomes text only in messages:
    a member's name may be as long as the file, and its items many."""

    outer: Place | None
    step: str | int

    def __str__(self) -> str:
        if self.outer is None:
            return str(self.step)
        inner = f"[{self.step}]" if isinstance(self.step, int) else f".{self.step[:80]}"
        return f"{self.outer}{inner}"


def _canonical(value: Any, place: Place, depth: int) -> Any:
    """Return `value` as a round trip through its canonical form would."""
    if depth > MAX_NESTING:
        raise SpecError(f"nested deeper than {MAX_NESTING} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _canonical_text(value, place)
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise SpecError(
                f"{place}: integer {_shown(value)} is beyond ±(2^53 - 1); write it as a string"
            )
        return int(value)
    if isinstance(value, float):
        return _canonical_float(value, place)
    if isinstance(value, Mapping):
        return _canonical_object(value, place, depth)
    if isinstance(value, (list, tuple)):
        return [_canonical(item, Place(place, i), depth + 1) for i, item in enumerate(value)]
    raise SpecError(f"{place}: {_kind(value)} is not a JSON value")


def _canonical_text(value: str, place: Place) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise SpecError(f"{place}: contains a lone surrogate, which is not text") from None
    return str(value)


def _canonical_float(value: float, place: Place) -> int | float:
    if not math.isfinite(value):
        raise SpecError(f"{place}: {value} is not a JSON number")
    if value.is_integer():
        if abs(value) > MAX_INTEGER:
            raise SpecError(f"{place}: {value!r} is beyond ±(2^53 - 1); write it as a string")
        return int(value)
    return float(value)


def _canonical_object(value: Mapping[Any, Any], place: Place, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in value:
        if not isinstance(name, str):
            raise SpecError(f"{place}: member name {_shown(name)} is not a string")
        _canonical_text(name, place)
    for name in sorted(value, key=lambda text: text.encode("utf-16-be")):
        result[str(name)] = _canonical(value[name], Place(place, name), depth + 1)
    return result


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise SpecError(f"member {_shown(name)} appears twice in one object")
        seen[name] = value
    return seen


def _no_constant(name: str) -> NoReturn:
    raise SpecError(f"{name} is not a JSON number")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value)) or f"{type(value).__name__} {_shown(value)}"


def _shown(value: Any) -> str:
    """A value in a message: not longer than 80 characters."""
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to write some of them
        return f"of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
