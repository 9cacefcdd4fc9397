"""Plain handlers, which do not use the SDK, and loading handlers by name.

A plain handler is a class with the four methods ``__init__(config, base_data_path)``,
``config_options()``, ``as_tfrecord()`` and ``tf_records_mapper(files)``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from dscache_sdk.errors import HandlerContractError
from dscache_sdk.handler import DatasetHandler
from dscache_sdk.options import refuse_unknown
from dscache_sdk.tfds import parse_shard_name

ENTRY_POINT_GROUP = "dscache.handlers"

_METHODS = ("config_options", "as_tfrecord", "tf_records_mapper")
_FILE_NAME = re.compile(r".+\.tfrecord(-\d{5,}-of-\d{5,})?")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def load_handler(entry_point_name: str) -> type[Any]:
    """Load the handler class registered under this name in the group ``dscache.handlers``.

    Raises:
        HandlerContractError: no handler has that name (the message lists the installed ones),
            several have it, its module cannot be imported, or it is not a handler.
    """
    points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    matches = [point for point in points if point.name == entry_point_name]
    values = {point.value for point in matches}
    if not matches:
        installed = ", ".join(sorted({point.name for point in points})) or "none"
        raise HandlerContractError(
            f"no handler '{entry_point_name}' is installed here; installed: {installed}"
        )
    if len(values) > 1:
        raise HandlerContractError(
            f"several packages offer a handler '{entry_point_name}': {', '.join(sorted(values))}"
        )
    try:
        loaded = matches[0].load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise HandlerContractError(
            f"the handler '{entry_point_name}' ({matches[0].value}) cannot be imported: {error}"
        ) from error
    return checked_class(loaded, entry_point_name)


def checked_class(loaded: Any, name: str) -> type[Any]:
    """Return the class if it is a handler. Raises HandlerContractError otherwise."""
    if not isinstance(loaded, type):
        raise HandlerContractError(
            f"the handler '{name}' is a {type(loaded).__name__}, not a class"
        )
    missing = [method for method in _METHODS if not callable(getattr(loaded, method, None))]
    if missing:
        raise HandlerContractError(
            f"the handler '{name}' ({loaded.__name__}) lacks {', '.join(missing)}"
        )
    return loaded


def is_plain(cls: type[Any]) -> bool:
    """Whether a handler class has the four methods but does not use the SDK."""
    return not issubclass(cls, DatasetHandler)


def run_plain(
    cls: type[Any],
    config: Mapping[str, Any],
    base_data_path: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
) -> list[Path]:
    """Run a plain handler in `workdir` and return the files that it wrote, in its order.

    The current directory is `workdir` while it runs (this affects the whole process).

    Raises:
        OptionsError: the config has an option that is not in `config_options()`.
        HandlerContractError: `as_tfrecord()` did not return a list of existing .tfrecord files
            with distinct names.
    """
    options = cls.config_options()
    if isinstance(options, Mapping):
        refuse_unknown(config, options)
    raw = str(Path(base_data_path).absolute())
    with contextlib.chdir(workdir):
        returned = cls(dict(config), raw).as_tfrecord()
    return _checked_files(returned, Path(workdir), cls.__name__)


def _checked_files(returned: Any, workdir: Path, handler: str) -> list[Path]:
    if isinstance(returned, str | bytes) or not isinstance(returned, Sequence):
        kind = type(returned).__name__
        raise HandlerContractError(
            f"{handler}.as_tfrecord() returned a {kind}, not a list of paths"
        )
    if not returned:
        raise HandlerContractError(f"{handler}.as_tfrecord() returned no files")
    paths = [_checked_file(item, workdir, handler) for item in returned]
    names: set[str] = set()
    for path in paths:
        if path.name in names:
            raise HandlerContractError(f"{handler}.as_tfrecord() returned two files '{path.name}'")
        names.add(path.name)
    return paths


def _checked_file(item: Any, workdir: Path, handler: str) -> Path:
    where = f"{handler}.as_tfrecord() returned {item!r}"
    if not isinstance(item, str | os.PathLike) or not os.fspath(item):
        raise HandlerContractError(f"{where}, which is not a path")
    path = workdir / os.fspath(item)
    if not _FILE_NAME.fullmatch(path.name):
        raise HandlerContractError(f"{where}; a file's name must end in .tfrecord")
    if not path.exists():
        raise HandlerContractError(f"{where}, which does not exist")
    if path.is_symlink() or not path.is_file():
        raise HandlerContractError(f"{where}, which is not a regular file")
    return path


def plain_splits(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """The split of each file, from its name: ``x-val.tfrecord``, ``val_03.tfrecord``, …

    The last of the words train, val, valid, validation, test, … counts, where words are separated
    by ``-``, ``_`` or ``.``. A name without one belongs to "train".
    """
    return [(_split_of(Path(path).name), Path(path)) for path in paths]


def _split_of(name: str) -> str:
    parsed = parse_shard_name(name)
    if parsed is not None:
        return _SPLITS.get(parsed[1].lower(), parsed[1])
    stem = name.partition(".tfrecord")[0].lower()
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[-_.]", stem)]
    named = [_SPLITS[word] for word in words if word in _SPLITS]
    return named[-1] if named else "train"
