"""dscache: describe a dataset in a config, get it built once near the raw data, train.

    import dscache
    ds = dscache.get("cfg.json")
    for batch in ds.tfdata("train", batch_size=32): ...

Importing this reads no environment variable and no file; public names are loaded at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import get, request_dataset, wait_for_completion
    from .client import Client
    from .config import Config
    from .errors import (
        AccessDenied,
        BuildFailed,
        ConfigError,
        DscacheError,
        IntegrityError,
        NoSpace,
        NotCached,
        SpecError,
        StoreError,
        StoreUnreachable,
        UsageError,
        WaitTimeout,
    )
    from .reading.dataset import Dataset
    from .spec import Spec

__version__ = "0.2.0"

_NAMES_BY_MODULE = {
    "api": ("get", "request_dataset", "wait_for_completion"),
    "client": ("Client",),
    "config": ("Config",),
    "reading.dataset": ("Dataset",),
    "errors": (
        "AccessDenied",
        "BuildFailed",
        "ConfigError",
        "DscacheError",
        "IntegrityError",
        "NoSpace",
        "NotCached",
        "SpecError",
        "StoreError",
        "StoreUnreachable",
        "UsageError",
        "WaitTimeout",
    ),
    "spec": ("Spec",),
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "AccessDenied",
    "BuildFailed",
    "Client",
    "Config",
    "ConfigError",
    "Dataset",
    "DscacheError",
    "IntegrityError",
    "NoSpace",
    "NotCached",
    "Spec",
    "SpecError",
    "StoreError",
    "StoreUnreachable",
    "UsageError",
    "WaitTimeout",
    "get",
    "request_dataset",
    "wait_for_completion",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'dscache' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
