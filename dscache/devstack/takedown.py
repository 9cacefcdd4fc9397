"""Take a stack down: exactly what its record says was started, and nothing by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config import user_file
from . import folder, profile, program, record
from .errors import StackError
from .localstore import LocalStore


def down(directory: Path, environ: Mapping[str, str], *, delete: bool = False) -> list[str]:
    """Stop builder and store, the builder first; what was done, in words.

    Data stays, unless `delete`: then data, credentials, logs and the profile go too. Raises
    StackError when the directory holds no stack.
    """
    if not (directory / record.STACK_FILE).is_file():
        raise StackError(f"{directory} holds no stack; name its directory with --directory")
    with folder.locked(directory):
        done = _stop(directory)
        if delete:
            done += _delete(directory, environ)
    if delete:
        folder.remove_if_empty(directory)
    return done


def _stop(directory: Path) -> list[str]:
    kept = record.read_record(directory)
    done = []
    if program.stop(kept.builder):
        done.append("builder stopped")
    kept.builder = None
    record.write_record(directory, kept)
    if LocalStore(directory, Path()).stop():
        done.append("store stopped")
    return done


def _delete(directory: Path, environ: Mapping[str, str]) -> list[str]:
    kept = record.read_record(directory)
    endpoint = LocalStore(directory, Path()).endpoint
    path = user_file(environ)
    done = []
    if kept.profile and profile.remove(path, kept.profile, endpoint):
        done.append(f"profile {kept.profile!r} removed from {path}")
    folder.delete(directory)
    return [*done, f"data deleted from {directory}"]
