"""The builder.toml of a local stack: written once, then edited by the user.

Later runs only append missing datasets, and update the endpoint when the store's port changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from ..config import Config, read_toml
from ..errors import ConfigError, UsageError
from ..files import PRIVATE, write_file
from ..spec import DATASET_NAME

MAX_FILE_BYTES = 1 << 20
MAX_PATH = 4096
SOURCE = "dataset-handlers=={version}"
HANDLERS = ("coco", "composite", "photos", "saliency")  # of that package
HEADER = """\
# Written once by `dscache up`. After editing it, run `dscache down` and `dscache up`.
# Each [datasets.<dataset_name>] names the handler that turns raw data into that dataset:
#
#   [datasets.photos]
#   handler = "photos"
#   raw = "/srv/raw/photos"
#   source = "dataset-handlers=={version}"
#   max_bad_samples = 0

"""


def parse_raw(arguments: tuple[str, ...]) -> dict[str, Path]:
    """Parse `NAME=DIR` arguments to name → absolute directory. Raises UsageError."""
    raw: dict[str, Path] = {}
    for argument in arguments:
        name, equals, directory = argument.partition("=")
        path = _resolved(directory, argument)
        if not equals or not directory or not DATASET_NAME.fullmatch(name):
            raise UsageError(
                f"--raw {argument}: expected NAME=DIR, for example photos=/srv/raw/photos"
            )
        if not _is_folder(path):
            raise UsageError(f"--raw {argument}: {path} is not a directory")
        raw[name] = path
    return raw


def _resolved(directory: str, argument: str) -> Path:
    if len(directory) > MAX_PATH:
        raise UsageError(f"--raw {argument[:200]}…: not a path: longer than {MAX_PATH} characters")
    try:
        return Path(directory).expanduser().resolve()
    except (RuntimeError, ValueError, OSError) as error:  # ~nobody, a NUL, a name that is too long
        raise UsageError(f"--raw {argument[:200]}: not a path: {error}") from None


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
    """Append the missing datasets; return whether there were any.

    Raises UsageError if the file has one of them with other raw data.
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
    """Return the `[datasets.…]` tables. Raises ConfigError."""
    document = read_toml(path, limit_bytes=MAX_FILE_BYTES)
    if document is None:
        raise ConfigError(f"{path}: no such file")
    tables = document.get("datasets", {})
    values = [tables, *tables.values()] if isinstance(tables, dict) else [tables]
    if not all(isinstance(table, dict) for table in values):
        raise ConfigError(f"{path}: datasets: expected tables [datasets.<dataset_name>]")
    return dict(tables)


def missing_handlers(path: Path) -> list[str]:
    """Return a warning for each dataset whose handler the included package does not have.

    `--raw NAME=DIR` cannot know another package, so it writes NAME as the handler.
    """
    return [
        f"[datasets.{name}] in {path}: dataset-handlers has no handler {table.get('handler')!r} "
        f"(it has {', '.join(HANDLERS)}); write your own `handler` and `source` there, then run "
        "`dscache down` and `dscache up`"
        for name, table in datasets(path).items()
        if isinstance(table, dict)  # otherwise the builder says what is wrong
        and table.get("source") == SOURCE
        and table.get("handler") not in HANDLERS
    ]


def replace_endpoint(path: Path, old: str, new: str) -> bool:
    """Replace the store's old endpoint everywhere; return whether anything changed."""
    text = path.read_text()
    quoted = f'"{old}"'
    if old == new or quoted not in text:
        return False
    write_file(path, text.replace(quoted, f'"{new}"').encode(), mode=PRIVATE)
    return True


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _table(name: str, raw: Path) -> str:
    table = {"handler": name, "raw": str(raw), "source": SOURCE, "max_bad_samples": 0}
    return tomli_w.dumps({"datasets": {name: table}})
