"""Read and write a stack's `stack.json` and `credentials.json` (mode 0600)."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from ..files import PRIVATE, write_file
from .errors import StackError
from .process import Process

STACK_FILE = "stack.json"
CREDENTIALS_FILE = "credentials.json"
SECRET_BYTES = 24
S = TypeVar("S")
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Binary(msgspec.Struct, frozen=True):
    """Identity of a server program that was probed."""

    path: str
    size: int
    modified_ns: int


class Record(msgspec.Struct):
    """The state of a stack: its ports, the processes that were started, the profile written.

    `binary` passed the probe; `rejected` failed it and are not probed again.
    """

    schema: int = 1
    api_port: Port = 0
    console_port: Port = 0
    server: Process | None = None
    provisioned: bool = False
    builder: Process | None = None
    binary: Binary | None = None
    rejected: list[Binary] = []
    profile: str = ""
    bucket: str = "dscache"


class Login(msgspec.Struct, frozen=True):
    """An access key and its secret. `repr` hides the secret."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Login({self.access_key!r})"


class Credentials(msgspec.Struct, frozen=True):
    """The logins of the three users of a local store."""

    root: Login
    client: Login
    builder: Login


def read_record(directory: Path) -> Record:
    """Read the record of a directory; an empty one if there is none. Raises StackError."""
    path = directory / STACK_FILE
    remedy = "move the file away and run `dscache up` again"
    return _read(path, Record, remedy) or Record()


def write_record(directory: Path, record: Record) -> None:
    """Replace the record atomically."""
    write_file(directory / STACK_FILE, _encoded(record), mode=PRIVATE)


def credentials(directory: Path) -> Credentials:
    """Read the credentials of a directory; create random ones the first time. Raises StackError."""
    path = directory / CREDENTIALS_FILE
    found = _read(path, Credentials, "restore the file, or run `dscache down --delete`")
    if found is not None:
        return found
    created = Credentials(*(_login(role) for role in ("root", "client", "builder")))
    write_file(path, _encoded(created), mode=PRIVATE)
    return created


def _read(path: Path, kind: type[S], remedy: str) -> S | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise StackError(f"{path}: {error}; {remedy}") from None


def _encoded(structure: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(structure))


def _login(role: str) -> Login:
    return Login(f"dscache-{role}", secrets.token_urlsafe(SECRET_BYTES))
