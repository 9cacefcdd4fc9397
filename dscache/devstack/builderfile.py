"""The builder.toml of a local stack: written once, then edited by the user.

Later runs only append missing datasets, and update the endpoint when the store's port changes.
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
        path = Path(directory).expanduser().resolve()
        if not equals or not directory or not DATASET_NAME.fullmatch(name):
            raise UsageError(
                f"--raw {argument}: expected NAME=DIR, for example photos=/srv/raw/photos"
            )
        if not path.is_dir():
            raise UsageError(f"--raw {argument}: {path} is not a directory")
        raw[name] = path
    return raw


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
    try:
        tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text()).get("datasets", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return tables


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


def _table(name: str, raw: Path) -> str:
    table = {"handler": name, "raw": str(raw), "source": SOURCE, "max_bad_samples": 0}
    return tomli_w.dumps({"datasets": {name: table}})
