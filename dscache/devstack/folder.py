"""The directory of a stack: its default path, its lock, and deleting what is in it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from . import record
from .errors import StackError

LOCK_S = 900.0  # another process may be building the server
LOCK_FILE = ".lock"
BUILDER_FILE = "builder.toml"
BUILDER_LOG = "builder.log"
WHEELS_LOG = "wheels.log"
OWNED = (
    *("data", ".minio", "home", "wheels", "builder"),
    *(BUILDER_FILE, BUILDER_LOG, WHEELS_LOG, "store.log"),
    *(
        record.CREDENTIALS_FILE,
        record.STACK_FILE,
    ),  # last, so that an interrupted deletion can be repeated
)


def default(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/dscache/stack`, else under `~/.local/state`."""
    home = Path(environ.get("HOME", "~")).expanduser()
    base = environ.get("XDG_STATE_HOME") or str(home / ".local" / "state")
    return Path(base) / "dscache" / "stack"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the directory, which is created if necessary. Raises StackError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with FileLock(directory / LOCK_FILE, timeout=LOCK_S):
            yield
    except Timeout:
        raise StackError(f"another `dscache up` or `down` is running in {directory}") from None


def delete(directory: Path) -> None:
    """Delete the files of a stack from its directory, and nothing else."""
    for name in OWNED:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            _make_writable(path)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_if_empty(directory: Path) -> None:
    """Delete the lock file, and the directory if it is empty then."""
    (directory / LOCK_FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _make_writable(top: Path) -> None:
    """Make all folders writable: entries of read-only folders cannot be removed."""
    top.chmod(0o700)
    for parent, folders, _ in os.walk(top):
        for folder in folders:
            path = Path(parent, folder)
            if not path.is_symlink():
                path.chmod(0o700)
