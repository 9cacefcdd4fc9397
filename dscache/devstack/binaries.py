"""Which server program a stack runs: one on PATH that does what is needed, or one built here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from . import build, probe
from .errors import StackError
from .record import Record

PROGRAMS = ("minio", "silo")


def choose(record: Record, environ: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """The program to run, noted in the record (the caller writes it). Raises StackError.

    Programs on PATH are tried once and remembered by path, size and time; the cached build was
    tried when it was made.
    """
    for program in PROGRAMS:
        found = shutil.which(program, path=environ.get("PATH", ""))
        if found and _usable(Path(found).resolve(), record, say):
            return Path(found).resolve()
    return build.ensure_binary(environ, say)


def _usable(program: Path, record: Record, say: Callable[[str], None]) -> bool:
    identity = probe.identity(program)
    if identity == record.binary or identity in record.rejected:
        return identity == record.binary
    try:
        probe.check(program)
    except StackError as error:
        say(f"not used: {error}")
        record.rejected.append(identity)
        return False
    record.binary = identity
    return True
