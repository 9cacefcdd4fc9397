"""Run the object store's server as a process on loopback, in a clean environment."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .errors import StackError, with_tail
from .process import Process, alive, spawn, wait_until
from .record import Login

HOST = "127.0.0.1"
START_S = 60.0
STALE_UPLOADS_EXPIRY = (
    "168h"  # the default of 24 h would delete the parts of a paused build (docs/operations.md)
)


def start(
    binary: Path, directory: Path, *, root: Login, api_port: int, console_port: int
) -> Process:
    """Start the server on `directory`/data; `wait_healthy` waits until it is ready."""
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    argv = [
        str(binary),
        "server",
        str(data),
        "--address",
        f"{HOST}:{api_port}",
        "--console-address",
        f"{HOST}:{console_port}",
    ]
    return spawn(argv, environ=_environ(directory, root), log=log_path(directory))


def log_path(directory: Path) -> Path:
    """Return the path of the server's log."""
    return directory / "store.log"


def wait_healthy(
    process: Process, directory: Path, api_port: int, *, timeout_s: float = START_S
) -> None:
    """Wait until the server accepts requests. Raises StackError with the end of its log."""
    wait_until(lambda: not alive(process) or healthy(api_port), timeout_s=timeout_s)
    if not alive(process):
        raise StackError(with_tail("the store's server exited immediately", log_path(directory)))
    if not healthy(api_port):
        message = f"the store's server is not healthy after {timeout_s:.0f} s"
        raise StackError(with_tail(message, log_path(directory)))


def healthy(api_port: int) -> bool:
    """Whether the server on this port reports that it can read and write."""
    connection = http.client.HTTPConnection(HOST, api_port, timeout=5.0)
    try:
        connection.request("GET", "/minio/health/cluster")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_ports(wanted: Sequence[int]) -> list[int]:
    """Return a free port for each wanted one: another only if it is 0 or taken."""
    with ExitStack() as held:
        return [_bind(held, port) for port in wanted]


def _bind(held: ExitStack, port: int) -> int:
    listener = held.enter_context(socket.socket())
    # as the server does: otherwise a recently closed port counts as taken
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.bind((HOST, 0))
    return int(listener.getsockname()[1])


def _environ(directory: Path, root: Login) -> dict[str, str]:
    """Return the server's environment. The caller's is left out: CI, for one, shrinks buffers."""
    return {
        "PATH": os.defpath,
        "HOME": str(directory),  # searched for TLS certificates
        "MINIO_ROOT_USER": root.access_key,
        "MINIO_ROOT_PASSWORD": root.secret_key,
        "MINIO_API_STALE_UPLOADS_EXPIRY": STALE_UPLOADS_EXPIRY,
        "MINIO_UPDATE": "off",
    }
