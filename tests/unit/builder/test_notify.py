"""sd_notify over real datagram sockets."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dscache_builder.notify import Notifier

PATIENCE_S = 5.0


@pytest.fixture
def manager() -> Iterator[tuple[socket.socket, str]]:
    """A receiving socket in the abstract namespace and its NOTIFY_SOCKET value."""
    name = f"dscache-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(PATIENCE_S)
        receiver.bind(f"\0{name}")
        yield receiver, f"@{name}"


def test_every_message_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    for send, expected in (
        (notifier.ready, b"READY=1"),
        (notifier.watchdog, b"WATCHDOG=1"),
        (notifier.stopping, b"STOPPING=1"),
    ):
        send()
        assert receiver.recv(1024) == expected


def test_a_status_stays_one_line(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    Notifier.from_environ({"NOTIFY_SOCKET": address}).status("photos:\nREADY=1\n 3 of 12 — fine")
    assert receiver.recv(1024).decode() == "STATUS=photos: READY=1 3 of 12 — fine"


def test_a_long_status_is_cut(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    Notifier.from_environ({"NOTIFY_SOCKET": address}).status("x" * 5000)
    assert len(receiver.recv(8192)) == len("STATUS=") + 200


def test_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(PATIENCE_S)
        receiver.bind(str(path))
        Notifier.from_environ({"NOTIFY_SOCKET": str(path)}).ready()
        assert receiver.recv(1024) == b"READY=1"


def test_without_the_variable_nothing_is_sent(manager: tuple[socket.socket, str]) -> None:
    receiver, _ = manager
    notifier = Notifier.from_environ({"WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.status("nobody hears this")
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(1024)
    assert notifier.watchdog_interval_s is None


@pytest.mark.parametrize("address", ["@gone-away", "/no/such/socket", "vsock:2:1234"])
def test_a_manager_that_is_gone_is_no_error(address: str) -> None:
    Notifier.from_environ({"NOTIFY_SOCKET": address}).ready()


def test_a_full_socket_does_not_block(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    for _ in range(2000):  # far beyond net.unix.max_dgram_qlen; a blocking send would time out here
        notifier.watchdog()
    assert receiver.recv(1024) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "77"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval_is_half_of_the_limit(
    environ: dict[str, str], interval_s: float | None
) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": "@x", **environ}, pid=77)
    assert notifier.watchdog_interval_s == interval_s


def test_the_default_process_is_this_one() -> None:
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.from_environ(environ).watchdog_interval_s == 1.0
