"""The builder's configuration, builder.toml: which code may run on which raw data.

docs/operations.md#the-builder lists all settings.

state = "/var/lib/dscache"          # environments, scratch, logs
find_links = ["/srv/wheels"]        # folders with wheels that are on no index
workers = 8                         # processes per build (default: one per core)
max_builds = 1                      # datasets built at the same time

[store]
endpoint = "http://127.0.0.1:9000"  # and bucket, region, access_key, secret_key

[datasets.photos]                   # dataset_name
handler = "photos"                  # entry point in the group dscache.handlers
raw = "/srv/raw/photos"
source = "dataset-handlers=={version}"
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dscache.config import ENVIRONMENT, Config, read_toml
from dscache.credentials import SECRETS
from dscache.errors import ConfigError
from dscache.settings import check_setting
from dscache.spec import DATASET_NAME

DAY_S = 86_400.0
KEEP_DAYS = 14.0
MAX_FILE_BYTES = 1 << 20
MAX_NAME_BYTES = 255
MAX_PROCESSES = 4096
MIN_SCRATCH_BYTES = 256 << 20
MAX_NUMBER = 2**62  # more bytes than any disk has
FROM_VARIABLES = {"endpoint": ("DSCACHE_ENDPOINT",), **{n: ENVIRONMENT[n] for n in SECRETS}}
RENAMED = {"sweep_s": "reconcile_s"}
_PASSWORD = re.compile(r"https?://[^/\s]*@|://[^/@\s]*:[^/@\s]*@")


class StoreSection(msgspec.Struct, forbid_unknown_fields=True):
    """`[store]`: the bucket. Keys may come from DSCACHE_* or AWS_* variables instead."""

    endpoint: str = ""
    bucket: str = "dscache"
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""

    def __repr__(self) -> str:
        return f"StoreSection({self.endpoint!r}, bucket={self.bucket!r})"


class DatasetSource(msgspec.Struct, forbid_unknown_fields=True):
    """`[datasets.<name>]`: the code and the raw data of one dataset_name.

    In `source`, `{version}` stands for the request's handler_version. `max_bad_samples` is a number
    of samples, or, as a float, a fraction of them. `memory_bytes` limits each worker process,
    `sample_seconds` each sample.
    """

    handler: str
    raw: Path
    source: str
    max_bad_samples: int | float = 0
    memory_bytes: int | None = None
    sample_seconds: float | None = None


class BuilderConfig(msgspec.Struct, forbid_unknown_fields=True):
    """All of builder.toml. `load` makes its paths absolute."""

    state: Path
    datasets: dict[str, DatasetSource]
    store: StoreSection = msgspec.field(default_factory=StoreSection)
    find_links: list[str] = []
    index_url: str = ""
    workers: int = 0
    max_builds: int = 1
    scratch_bytes: int = 4 << 30
    reconcile_s: float = 30.0
    environments_keep_days: float = KEEP_DAYS
    scratch: Path = Path()
    name: str = ""

    def store_config(self, environ: Mapping[str, str]) -> Config:
        """The store section as a client configuration, completed from environment variables.

        Raises ConfigError, which names the setting and where it stands.
        """
        settings = {name: getattr(self.store, name) for name in StoreSection.__struct_fields__}
        origin = dict.fromkeys(settings, "[store] of builder.toml")
        for name, variables in FROM_VARIABLES.items():
            variable = next((variable for variable in variables if environ.get(variable)), None)
            if variable and not settings[name]:
                settings[name], origin[name] = environ[variable], f"${variable}"
        for name, value in settings.items():
            check_setting(name, value, origin[name])
        return Config(**settings, origin=origin)


def load(path: Path) -> BuilderConfig:
    """Read and check builder.toml. Raises ConfigError, which names the file and the setting."""
    document = read_toml(path, limit_bytes=MAX_FILE_BYTES)
    if document is None:
        raise ConfigError(
            f"{path}: no such file; write one (docs/operations.md), or let `dscache up` create one"
        )
    return _checked(document, path)


def is_secret_exposed(path: Path, config: BuilderConfig) -> bool:
    """Whether every user of this machine can read the store's secret in builder.toml."""
    return bool(config.store.secret_key) and path.stat().st_mode & 0o007 != 0


def _checked(document: dict[str, Any], path: Path) -> BuilderConfig:
    for before, now in RENAMED.items():
        if before in document:
            raise ConfigError(f"{path}: {before} has been renamed: write {now} instead")
    try:
        config = msgspec.convert(document, BuilderConfig, dec_hook=_path)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    base = path.resolve().parent
    config.state = _absolute(config.state, base, f"{path}: state")
    config.scratch = (
        _absolute(config.scratch, base, f"{path}: scratch")
        if config.scratch != Path()
        else config.state / "scratch"
    )
    config.workers = config.workers or len(os.sched_getaffinity(0))
    config.find_links = [
        link if "://" in link else str(_absolute(Path(link), base, f"{path}: find_links"))
        for link in config.find_links
    ]
    _check_numbers(config, path)
    for name, source in config.datasets.items():
        source.raw = _absolute(source.raw, base, f"{path}: [datasets.{name}]: raw")
        _check_source(f"{path}: [datasets.{name}]", name, source)
    return config


def _check_numbers(config: BuilderConfig, path: Path) -> None:
    for name, least, most in (
        ("workers", 1, MAX_PROCESSES),
        ("max_builds", 1, MAX_PROCESSES),
        ("scratch_bytes", MIN_SCRATCH_BYTES, MAX_NUMBER),
        ("reconcile_s", 1, DAY_S),
        ("environments_keep_days", 1, MAX_NUMBER),
    ):
        _check_range(f"{path}: {name}", getattr(config, name), least, most)
    if not config.datasets:
        raise ConfigError(f"{path}: no [datasets.<name>] section, so there is nothing to build")


def _check_range(where: str, value: float, least: float, most: float) -> None:
    if value < least:
        raise ConfigError(f"{where}: {value} is less than {least}")
    if not value <= most:  # nan is neither
        raise ConfigError(f"{where}: {value} is more than {most:g}")


def _check_source(where: str, name: str, source: DatasetSource) -> None:
    if not DATASET_NAME.fullmatch(name):
        raise ConfigError(f"{where}: not a dataset_name (lower-case letters, digits, '-')")
    most = 1 if isinstance(source.max_bad_samples, float) else MAX_NUMBER
    if not 0 <= source.max_bad_samples <= most:
        raise ConfigError(
            f"{where}: max_bad_samples: {source.max_bad_samples} is neither a number of samples "
            "(such as 10) nor a fraction of them (such as 0.01)"
        )
    if source.memory_bytes is not None:
        _check_range(f"{where}: memory_bytes", source.memory_bytes, 1, MAX_NUMBER)
    _check_range(f"{where}: sample_seconds", source.sample_seconds or 1, 0, MAX_NUMBER)
    if _PASSWORD.search(source.source):
        raise ConfigError(
            f"{where}: source contains a password, but sources are written into the bucket; "
            "provide the credentials to git (a credential helper, or an ssh key)"
        )
    if not source.source or not source.handler:
        raise ConfigError(f"{where}: source and handler must not be empty")


def _absolute(path: Path, base: Path, where: str) -> Path:
    try:
        absolute = (base / path.expanduser()).resolve()
        if any(len(os.fsencode(name)) > MAX_NAME_BYTES for name in absolute.parts):
            raise OSError("a name in it is too long")
        return absolute
    except (RuntimeError, ValueError, OSError) as error:  # ~nobody, a NUL, a name that is too long
        raise ConfigError(f"{where}: {str(path)[:200]!r} is not a path: {error}") from None


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
