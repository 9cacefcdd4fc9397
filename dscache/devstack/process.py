"""Start processes that outlive the command, find them again, and stop them.

A process is identified by its id, its start time and the machine's boot id: ids are reused, the
three together are not. Processes are never looked up or stopped by name.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from .errors import StackError

POLL_S = 0.02
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Process(msgspec.Struct, frozen=True):
    """Identity of a process. `started` is field 22 of /proc/<pid>/stat, in clock ticks."""

    pid: int
    started: int
    boot: str


def spawn(argv: Sequence[str], *, environ: Mapping[str, str], log: Path) -> Process:
    """Start a program in its own session; its output is appended to `log` (mode 0600).

    `argv[0]` is a path. Raises StackError if the program cannot be executed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        # not Popen, which warns when it is garbage-collected while the program runs
        pid = os.posix_spawn(argv[0], list(argv), environ, file_actions=actions, setsid=True)
    except OSError as error:
        raise StackError(f"{argv[0]} cannot be started: {error.strerror}") from None
    started = _started(pid)
    if started is None:
        raise StackError(f"{argv[0]} exited immediately; see {log}")
    return Process(pid, started, _boot())


def alive(process: Process | None) -> bool:
    """Whether exactly this process is running; a zombie is not."""
    if process is None or process.boot != _boot():
        return False
    return _started(process.pid) == process.started and not _reaped(process.pid)


def stop(
    process: Process | None, *, grace_s: float, clock: Callable[[], float] = time.monotonic
) -> bool:
    """Stop a process: SIGTERM, and after `grace_s` SIGKILL to its whole session.

    Returns False if it did not run. Raises StackError if it does not end.
    """
    if process is None or not alive(process):
        return False
    os.kill(process.pid, signal.SIGTERM)
    if not wait_until(lambda: not alive(process), timeout_s=grace_s, clock=clock):
        kill(process)
    return True


def kill(process: Process | None) -> None:
    """Send SIGKILL to the process and its session, and wait for its end. Raises StackError."""
    if process is None or not alive(process):
        return
    os.killpg(process.pid, signal.SIGKILL)
    if not wait_until(lambda: not alive(process), timeout_s=10.0):
        raise StackError(f"process {process.pid} does not end after SIGKILL")


def wait_until(
    condition: Callable[[], bool],
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Poll a condition; return whether it became true before the timeout."""
    deadline = clock() + timeout_s
    while not condition():
        if clock() >= deadline:
            return False
        sleep(POLL_S)
    return True


def _started(pid: int) -> int | None:
    """Return the start time of a process; None if it has ended or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may contain spaces and ")"
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    # the main thread may be a zombie while others still hold files and ports
    return None if state in "ZX" and threads <= 1 else started


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False  # started by an earlier command, so it is a child of init


def _boot() -> str:
    return BOOT_ID.read_text().strip()
