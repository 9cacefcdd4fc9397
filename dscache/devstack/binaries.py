"""Choose the server program of a stack: a suitable one on PATH, or one built here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from . import build, probe
from .errors import StackError
from .record import Record

PROGRAMS = ("minio", "silo")


def choose(record: Record, environ: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """Return the program to run, and note it in `record`, which the caller writes.

    Programs on PATH are probed once and remembered by path, size and modification time; the cached
    build was probed when it was made. Raises StackError.
    """
    for program in PROGRAMS:
        installed = shutil.which(program, path=environ.get("PATH", ""))
        if installed and _is_usable(Path(installed).resolve(), record, say):
            return Path(installed).resolve()
    return build.ensure_binary(environ, say)


def _is_usable(program: Path, record: Record, say: Callable[[str], None]) -> bool:
    identity = probe.identity(program)
    if identity == record.binary or identity in record.rejected:
        return identity == record.binary
    try:
        probe.check(program)
    except StackError as error:
        say(f"not using it: {error}")
        record.rejected.append(identity)
        return False
    record.binary = identity
    return True
