"""Process control on Linux: death with the parent, limits, how a process ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MIB = 1 << 20
EXIT_OUT_OF_MEMORY = 77


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent `parent` ends.

    Exits immediately if the parent has already ended. To the kernel, the parent is the thread that
    forked: fork in a thread that outlives the process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(memory_bytes: int | None) -> None:
    """Limit the address space of this process and its children, in bytes."""
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def no_core_files() -> None:
    """Disable core files, which are as large as the process's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@dataclass(frozen=True)
class Ending:
    """How a process ended: its signal (0: none), exit code, and peak resident memory in bytes."""

    signal: int
    code: int
    peak_bytes: int

    def __str__(self) -> str:
        event = f"ended with exit code {self.code}"
        if self.signal:
            event = f"was killed by {signal_name(self.signal)}"
        return f"{event} (peak memory {self.peak_bytes // _MIB} MiB)"


def signal_name(number: int) -> str:
    """A signal's name and usual cause: `SIGSEGV (invalid memory access in native code)` for 11."""
    meaning = {
        signal.SIGSEGV: "invalid memory access in native code",
        signal.SIGBUS: "invalid memory access in native code",
        signal.SIGFPE: "arithmetic error in native code",
        signal.SIGILL: "an instruction that this processor lacks",
        signal.SIGABRT: "native code aborted",
        signal.SIGKILL: "the machine ran out of memory, or another process killed it",
    }
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    hint = meaning.get(known)
    return f"{known.name} ({hint})" if hint else known.name


def reap(pid: int, *, block: bool = True) -> Ending | None:
    """Reap a child that has ended; None if it is still running and `block` is false."""
    reaped, status, usage = os.wait4(pid, 0 if block else os.WNOHANG)
    if reaped == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return Ending(max(0, -code), max(0, code), usage.ru_maxrss * 1024)


def kill(pid: int) -> None:
    """Send SIGKILL to a child; does nothing if it was reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def thread_count() -> int:
    """The number of threads of this process, including those of native libraries."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def note(text: str) -> None:
    """Write a line to the build's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
