"""What the operating system says about the local cache, as errors that name the remedy.

Light: a hit imports this.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, DscacheError, NoSpace

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
M = TypeVar("M", bound=Callable[..., Any])


def as_dscache_errors(method: M) -> M:
    """Let a method of an object with a `path` raise what `explain` says instead of an OSError."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except ConnectionError:  # of a pipe that progress is written to
            raise
        except OSError as error:
            raise error_of(error, self.path) from error

    return wrapped  # type: ignore[return-value]  # the callable is kept


def error_of(error: OSError, home: Path) -> DscacheError:
    """The error of the cache in `home` that an OSError is."""
    what = f"{error.filename or home}: {error.strerror or error}"
    if error.errno in FULL:
        return NoSpace(
            f"{what}; free some space (`dscache cache prune` removes old datasets), or set "
            "DSCACHE_HOME to a larger disk"
        )
    return ConfigError(
        f"{what}; the cache in {home} cannot be used like that: it has to be a folder that you may "
        "write to, so change its rights, or set DSCACHE_HOME to another one"
    )
