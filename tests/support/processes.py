"""The processes of a handler host that this process started, as the kernel lists them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from support.running import wait_until


def living(pids: Iterable[int]) -> set[int]:
    """Those of the processes that exist and are no zombies."""
    return {pid for pid in pids if (fields := status(pid)) and fields[0] not in "ZX"}


def status(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the command; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def everyone() -> set[int]:
    """All living processes."""
    return living(int(entry.name) for entry in Path("/proc").glob("[0-9]*"))


def children(parent: int) -> list[int]:
    """Living children of a process, the oldest first."""
    found = [(fields, pid) for pid in everyone() if (fields := status(pid))]
    return [
        pid
        for fields, pid in sorted(found, key=lambda item: int(item[0][19]))
        if int(fields[1]) == parent
    ]


def members(session: int) -> list[int]:
    """Living processes of a session."""
    return [pid for pid in everyone() if (fields := status(pid)) and int(fields[3]) == session]


def guard() -> int:
    """The guard of the only host of this process, once it runs."""

    def hosts() -> list[int]:
        return [pid for pid in children(os.getpid()) if b"host_main.py" in command_of(pid)]

    (pid,) = wait_until(hosts, "there is a host")
    return int(pid)


def command_of(pid: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def server() -> int:
    """The serving process of the only host."""
    return int(wait_until(lambda: children(guard()), "the guard has started a process")[0])


def workers() -> list[int]:
    """The workers of the only host."""
    return children(server())


def open_files() -> set[str]:
    """This process's open descriptors, with what they are."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that lists the folder
            found.add(f"{entry.name} {entry.readlink()}")
    return found
