"""The builder.toml of a local stack: written once, then the user's to edit.

Later runs only append datasets that are not in it yet, and follow the store when its port changes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from ..config import Config
from ..errors import ConfigError, UsageError
from ..files import PRIVATE, write_file
from ..spec import DATASET_NAME

SOURCE = "dataset-handlers=={version}"
HEADER = """\
# Written once by `dscache up`; change it as you like, then run `dscache down` and `dscache up`.
# Each [datasets.<dataset_name>] says which handler turns which raw data into that dataset:
#
#   [datasets.photos]
#   handler = "photos"
#   raw = "/srv/raw/photos"
#   source = "dataset-handlers=={version}"
#   max_bad_samples = 0

"""


def parse_raw(words: tuple[str, ...]) -> dict[str, Path]:
    """`NAME=DIR` words as name → absolute directory. Raises UsageError naming the word."""
    found: dict[str, Path] = {}
    for word in words:
        name, mark, directory = word.partition("=")
        path = Path(directory).expanduser().resolve()
        if not mark or not directory or not DATASET_NAME.fullmatch(name):
            raise UsageError(f"--raw {word}: expected NAME=DIR, as in photos=/srv/raw/photos")
        if not path.is_dir():
            raise UsageError(f"--raw {word}: {path} is not a directory")
        found[name] = path
    return found


def write_new(path: Path, *, state: Path, wheels: Path | None, store: Config) -> None:
    """Write a builder.toml without datasets (mode 0600: it holds the builder's secret)."""
    document: dict[str, Any] = {
        "state": str(state),
        "find_links": [str(wheels)] if wheels else [],
        "store": {
            "endpoint": store.require_endpoint(),
            "bucket": store.bucket,
            "region": store.region,
            "access_key": store.access_key,
            "secret_key": store.secret_key,
        },
    }
    write_file(path, (HEADER + tomli_w.dumps(document)).encode(), mode=PRIVATE)


def add_datasets(path: Path, raw: Mapping[str, Path]) -> bool:
    """Append the datasets that are not there yet; whether there were any.

    Raises UsageError when one is there with other raw data.
    """
    known = datasets(path)
    for name in known.keys() & raw.keys():
        if Path(str(known[name].get("raw", ""))) != raw[name]:
            raise UsageError(
                f"--raw {name}={raw[name]}: {path} has {known[name].get('raw')!r} for {name!r}; "
                "change it there"
            )
    new = {name: directory for name, directory in raw.items() if name not in known}
    if new:
        tables = "".join("\n" + _table(name, directory) for name, directory in new.items())
        write_file(path, (path.read_text().rstrip("\n") + "\n" + tables).encode(), mode=PRIVATE)
    return bool(new)


def datasets(path: Path) -> dict[str, dict[str, Any]]:
    """The `[datasets.…]` tables. Raises ConfigError."""
    try:
        found: dict[str, dict[str, Any]] = tomllib.loads(path.read_text()).get("datasets", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return found


def follow(path: Path, before: str, now: str) -> bool:
    """Replace the store's former endpoint wherever it stands; whether anything changed."""
    text = path.read_text()
    quoted = f'"{before}"'
    if before == now or quoted not in text:
        return False
    write_file(path, text.replace(quoted, f'"{now}"').encode(), mode=PRIVATE)
    return True


def _table(name: str, raw: Path) -> str:
    table = {"handler": name, "raw": str(raw), "source": SOURCE, "max_bad_samples": 0}
    return tomli_w.dumps({"datasets": {name: table}})
