"""Stop a stack: exactly the processes in its record, and none by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config import user_file
from . import folder, profile, program, record
from .errors import StackError
from .localstore import LocalStore


def down(directory: Path, environ: Mapping[str, str], *, delete: bool = False) -> list[str]:
    """Stop the builder, then the store; return what was done, in words.

    With `delete`, also delete data, credentials, logs and the profile. Raises StackError if the
    directory does not contain a stack.
    """
    if not (directory / record.STACK_FILE).is_file():
        raise StackError(f"no stack in {directory}; name its directory with --directory")
    with folder.locked(directory):
        done = _stop(directory)
        if delete:
            done += _delete(directory, environ)
    if delete:
        folder.remove_if_empty(directory)
    return done


def _stop(directory: Path) -> list[str]:
    stored = record.read_record(directory)
    done = []
    if program.stop(stored.builder):
        done.append("builder stopped")
    stored.builder = None
    record.write_record(directory, stored)
    if LocalStore(directory, Path()).stop():
        done.append("store stopped")
    return done


def _delete(directory: Path, environ: Mapping[str, str]) -> list[str]:
    stored = record.read_record(directory)
    endpoint = LocalStore(directory, Path()).endpoint
    path = user_file(environ)
    done = []
    if stored.profile and profile.remove(path, stored.profile, endpoint):
        done.append(f"profile {stored.profile!r} removed from {path}")
    folder.delete(directory)
    return [*done, f"data deleted from {directory}"]
