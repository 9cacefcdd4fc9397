"""Translate an OSError of the local cache into an error that names the remedy.

A hit imports this, so it imports little.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, DscacheError, NoSpace

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
M = TypeVar("M", bound=Callable[..., Any])


def as_dscache_errors(method: M) -> M:
    """Make a method of an object with a `path` raise `dscache_error` instead of an OSError."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except ConnectionError:  # of a pipe that progress is written to: not the cache
            raise
        except OSError as error:
            raise dscache_error(error, self.path) from error

    return wrapped  # type: ignore[return-value]  # the signature is unchanged


def dscache_error(error: OSError, home: Path) -> DscacheError:
    """Return the DscacheError for an OSError of the cache in `home`."""
    problem = f"{error.filename or home}: {error.strerror or error}"
    if error.errno in DISK_FULL:
        return NoSpace(
            f"{problem}; free some space (`dscache cache prune` removes old datasets), or set "
            "DSCACHE_HOME to a larger disk"
        )
    return ConfigError(
        f"{problem}; the cache in {home} must be a folder that you can write to: change its "
        "permissions, or set DSCACHE_HOME to another folder"
    )
