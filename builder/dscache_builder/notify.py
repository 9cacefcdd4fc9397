"""Report to systemd: ready, alive, stopping (sd_notify over $NOTIFY_SOCKET).

The protocol is one datagram of `NAME=value` lines (man 3 sd_notify). Without the variable every
call does nothing. Errors are ignored: building does not depend on the service manager.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

MAX_STATUS = 200


class Notifier:
    """Sends to one notification socket, or nowhere if `address` is None. Thread-safe.

    An address that begins with `@` is in the abstract namespace. `watchdog` should be called every
    `watchdog_interval_s` seconds, which is half of what systemd allows; None: there is no watchdog.
    """

    def __init__(self, address: str | None, *, watchdog_interval_s: float | None = None) -> None:
        self._address = _socket_address(address) if address else None
        self.watchdog_interval_s = watchdog_interval_s if self._address else None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, pid: int | None = None) -> Notifier:
        """The notifier of NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.

        A watchdog for a process other than `pid` (default: this process) is ignored.
        """
        for_this_process = environ.get("WATCHDOG_PID", "") in (
            "",
            str(os.getpid() if pid is None else pid),
        )
        interval_s = _half_s(environ.get("WATCHDOG_USEC", "")) if for_this_process else None
        return cls(environ.get("NOTIFY_SOCKET"), watchdog_interval_s=interval_s)

    def ready(self) -> None:
        """The builder listens and reconciles from now on."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Set the status line of `systemctl status`; line breaks become spaces."""
        self._send(f"STATUS={' '.join(text.split())[:MAX_STATUS]}")

    def stopping(self) -> None:
        """The builder releases its claims, then ends."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The main loop is alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.setblocking(False)  # a manager that does not read must not hold up a build
            sender.sendto(message.encode(), self._address)


def _socket_address(address: str) -> str | None:
    """The socket's address for the kernel; None if it is not a Unix socket."""
    if address.startswith("@"):
        return f"\0{address[1:]}"
    return address if address.startswith("/") else None


def _half_s(microseconds: str) -> float | None:
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) else None
