"""The builder's identity: an id that one process at a time holds."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dscache.errors import ConfigError

_ID = re.compile(rb"[0-9A-Za-z-]{1,64}")


@contextmanager
def claimed_state(state: Path) -> Iterator[str]:
    """Lock the state folder for this process and yield its builder id (made at first use).

    While the lock is held, no earlier process with this id exists, so its claims may be taken over
    before they expire. Raises ConfigError if the folder is in use.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = FileLock(state / "builder.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"state: {state} is in use by another builder; give each builder a folder of its own, "
            "or stop the other one"
        ) from None
    except OSError as error:
        raise ConfigError(f"state: {state} cannot be used: {error.strerror}") from None
    try:
        yield _builder_id(state / "builder.id")
    finally:
        lock.release()


def _builder_id(path: Path) -> str:
    if not path.is_file() or not path.read_bytes().strip():  # empty after a power failure
        temporary = path.with_suffix(".new")
        temporary.write_text(secrets.token_hex(8))
        temporary.replace(path)
    found = path.read_bytes().strip()
    if not _ID.fullmatch(found):
        raise ConfigError(f"{path}: damaged; delete it, and the builder makes another id")
    return found.decode()
