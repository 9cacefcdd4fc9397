"""Names of the objects in the bucket, see docs/protocol.md#objects. Pure.

No other module spells such a name.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

from ..spec import KEY

REQUESTS = "requests/"
BUILDS = "builds/"
DATASETS = "datasets/"
NONCE = re.compile(r"[0-9A-Za-z_-]{1,64}")


class RequestName(NamedTuple):
    """What the name of a request, cancel or failure says: the key and the request's nonce."""

    key: str
    nonce: str


def request(key: str, nonce: str) -> str:
    """`requests/<key>.<nonce>.json`"""
    return f"{REQUESTS}{key}.{nonce}.json"


def cancel(key: str, nonce: str) -> str:
    """`requests/<key>.<nonce>.cancel`"""
    return f"{REQUESTS}{key}.{nonce}.cancel"


def requests_of(key: str) -> str:
    """Prefix of all requests and cancels of a key."""
    return f"{REQUESTS}{key}."


def claim(key: str) -> str:
    """`builds/<key>.json`: claim and checkpoint in one register."""
    return f"{BUILDS}{key}.json"


def claims_of_version(dataset_name: str, handler_version: str) -> str:
    """Prefix of the claims on all keys of a handler version."""
    return f"{BUILDS}{dataset_name}_{handler_version}_"


def archive(key: str, generation: int) -> str:
    """The zip: `datasets/<key>.zip`, or `datasets/<key>.g<generation>.zip` after a retirement."""
    return f"{DATASETS}{key}.zip" if generation == 0 else f"{DATASETS}{key}.g{generation}.zip"


def objects_of(key: str) -> str:
    """Prefix of everything under `datasets/` that belongs to a key (what a waiter listens to)."""
    return f"{DATASETS}{key}."


def objects_of_version(dataset_name: str, handler_version: str) -> str:
    """Prefix of everything under `datasets/` that belongs to the keys of a handler version."""
    return f"{DATASETS}{dataset_name}_{handler_version}_"


def key_in(name: str) -> str | None:
    """Return the key that an object under `datasets/` belongs to, or None for any other name."""
    match = KEY.match(name, len(DATASETS)) if name.startswith(DATASETS) else None
    return match[0] if match and name.startswith(".", match.end()) else None


def ready(key: str) -> str:
    """`datasets/<key>.ready`: the commit point, a register."""
    return f"{DATASETS}{key}.ready"


def failed(key: str, nonce: str) -> str:
    """`datasets/<key>.failed.<nonce>`: answers the request with that nonce and no other."""
    return f"{DATASETS}{key}.failed.{nonce}"


def failures_of(key: str) -> str:
    """Prefix of all failures of a key."""
    return f"{DATASETS}{key}.failed."


def progress(key: str) -> str:
    """`datasets/<key>.progress`: a hint."""
    return f"{DATASETS}{key}.progress"


def preview(key: str) -> str:
    """`datasets/<key>.preview.png`: a hint."""
    return f"{DATASETS}{key}.preview.png"


def log(key: str) -> str:
    """`datasets/<key>.log`: a hint."""
    return f"{DATASETS}{key}.log"


def lock(dataset_name: str, handler_version: str) -> str:
    """`handlers/<dataset_name>/<version>.json`: options schema and environment lock."""
    return f"handlers/{dataset_name}/{handler_version}.json"


def raw(dataset_name: str) -> str:
    """`raw/<dataset_name>.json`: revision of the raw data."""
    return f"raw/{dataset_name}.json"


def usage(key: str, day: datetime.date, unique: str) -> str:
    """`usage/<key>/<day>/<id>.json`: one download."""
    return f"usage/{key}/{day.isoformat()}/{unique}.json"


def parse_request(name: str) -> RequestName | None:
    """The key and nonce of `requests/<key>.<nonce>.json`, or None for any other name."""
    return _request_name(name, ".json")


def parse_cancel(name: str) -> RequestName | None:
    """The key and nonce of `requests/<key>.<nonce>.cancel`, or None for any other name."""
    return _request_name(name, ".cancel")


def parse_claim(name: str) -> str | None:
    """The key of `builds/<key>.json`, or None for any other name."""
    if not (name.startswith(BUILDS) and name.endswith(".json")):
        return None
    key = name.removeprefix(BUILDS).removesuffix(".json")
    return key if KEY.fullmatch(key) else None


def parse_failure(name: str) -> RequestName | None:
    """The key and nonce of `datasets/<key>.failed.<nonce>`, or None for any other name."""
    if not name.startswith(DATASETS):
        return None
    key, mark, nonce = name.removeprefix(DATASETS).rpartition(".failed.")
    return RequestName(key, nonce) if mark and KEY.fullmatch(key) and is_nonce(nonce) else None


def parse_archive(name: str) -> str | None:
    """The key of `datasets/<key>.zip` or `datasets/<key>.g<n>.zip`, or None for any other name."""
    return key_in(name) if name.endswith(".zip") else None


def parse_ready(name: str) -> str | None:
    """The key of `datasets/<key>.ready`, or None for any other name."""
    if not (name.startswith(DATASETS) and name.endswith(".ready")):
        return None
    key = name.removeprefix(DATASETS).removesuffix(".ready")
    return key if KEY.fullmatch(key) else None


def _request_name(name: str, suffix: str) -> RequestName | None:
    if not (name.startswith(REQUESTS) and name.endswith(suffix)):
        return None
    key, _, nonce = name.removeprefix(REQUESTS).removesuffix(suffix).rpartition(".")
    return RequestName(key, nonce) if KEY.fullmatch(key) and is_nonce(nonce) else None


def is_nonce(text: str) -> bool:
    """Whether the text can be a nonce: short enough for every name that it becomes part of."""
    return NONCE.fullmatch(text) is not None
