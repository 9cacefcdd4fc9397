"""A TCP proxy in front of the store that breaks answers on purpose, and counts requests.

A fault is used up by the next ranged GET; other requests pass. Positions are bytes of the body.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

_RANGE = re.compile(rb"^range: bytes=(\d+)-(\d+)", re.IGNORECASE | re.MULTILINE)
_CHUNK_BYTES = 16 << 10


@dataclass(frozen=True)
class Cut:
    """Close the connection after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class Stall:
    """Send nothing more after so many bytes of the body, but keep the connection."""

    after: int


@dataclass(frozen=True)
class Flip:
    """Change the byte at this position of the body."""

    at: int


@dataclass(frozen=True)
class Answer:
    """Answer so instead of asking the store."""

    text: bytes


@dataclass(frozen=True)
class Throttle:
    """Send no faster than this, as a long line does for each connection."""

    bytes_per_s: float


Fault = Cut | Stall | Flip | Answer | Throttle


class FaultProxy:
    """Listens on a free loopback port; use as a context manager.

    Attributes:
        ranges: (first, last) byte of every ranged GET that came, in order.
        connections: how many there were.
        delay_s: how long every ranged GET takes to get here.
        always: a fault for every ranged GET that finds none in `faults`.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ranges: list[tuple[int, int]] = []
        self.connections = 0
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.delay_s = 0.0

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        # closing alone does not wake a thread that waits in accept
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    @property
    def requested_bytes(self) -> int:
        """Sum of the ranges that were asked for."""
        return sum(last + 1 - first for first, last in self.ranges)

    def cut_all(self) -> None:
        """Break every connection there is."""
        with self._lock:
            for each in list(self._open):
                _shut(each)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
            except OSError:
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._open |= {client, server}
            connection = _Connection(self, client, server)
            for target in (connection.requests, connection.answers):
                threading.Thread(target=self._run, args=(target, client, server)).start()

    def _run(self, target: object, client: socket.socket, server: socket.socket) -> None:
        assert callable(target)
        try:
            target()
        except OSError:
            pass  # either side has gone
        finally:
            with self._lock:
                self._open -= {client, server}
            for each in (client, server):
                _shut(each)
                each.close()

    def next_fault(self, first: int, last: int) -> Fault | None:
        """Count a ranged GET and say what happens to it."""
        with self._lock:
            self.ranges.append((first, last))
            return self.faults.popleft() if self.faults else self.always

    def pause(self, seconds: float) -> None:
        """Wait, at most until the proxy ends."""
        self._closed.wait(seconds)

    def wait_closed(self) -> None:
        """Hold a stalled connection until the proxy ends."""
        self._closed.wait()


class _Connection:
    """One client and its connection to the store; the client sends one request at a time."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._fault: Fault | None = None
        self._body_at: int | None = None  # None: the head of the answer is still coming
        self._head = b""

    def requests(self) -> None:
        request = b""
        while data := self._client.recv(_CHUNK_BYTES):
            request += data
            if not request.startswith(b"GET ") or b"\r\n\r\n" not in request:
                if not request.startswith(b"GET "):
                    self._server.sendall(request)
                    request = b""
                continue
            asked = _RANGE.search(request)
            self._body_at, self._head = None, b""
            self._fault = self._proxy.next_fault(int(asked[1]), int(asked[2])) if asked else None
            if asked:
                self._proxy.pause(self._proxy.delay_s)
            if isinstance(self._fault, Answer):
                self._client.sendall(self._fault.text)
            else:
                self._server.sendall(request)
            request = b""

    def answers(self) -> None:
        while data := self._server.recv(_CHUNK_BYTES):
            if self._body_at is None:
                self._head += data
                head, mark, data = self._head.partition(b"\r\n\r\n")
                if not mark:
                    continue
                self._body_at = 0
                self._client.sendall(head + mark)
            if not self._pass(data):
                return

    def _pass(self, data: bytes) -> bool:
        """Forward a piece of the body, with the fault; False when the connection is to end."""
        fault, begin = self._fault, self._body_at or 0
        self._body_at = begin + len(data)
        if isinstance(fault, Flip) and begin <= fault.at < self._body_at:
            changed = bytearray(data)
            changed[fault.at - begin] ^= 1
            data = bytes(changed)
        if isinstance(fault, (Cut, Stall)) and self._body_at >= fault.after:
            self._client.sendall(data[: fault.after - begin])
            if isinstance(fault, Stall):
                self._proxy.wait_closed()
            return False
        self._client.sendall(data)
        if isinstance(fault, Throttle):
            self._proxy.pause(len(data) / fault.bytes_per_s)
        return True


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed already
