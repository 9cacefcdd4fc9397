"""Requests that end in time, however slowly the response arrives.

A socket's timeout holds for each `recv`: a server that sends one byte a second never meets it, nor
does one that sends `100 Continue` again and again. So the connections here give every `recv` and
`send` the time that is left for the whole request.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import urllib3
import urllib3.connection
from urllib3.exceptions import HeaderParsingError
from urllib3.util.response import assert_header_parsing

REQUEST_S = 60.0  # for a request and its response, and more for large bodies:
LEAST_BYTES_PER_S = 64 << 10


class Pace(Protocol):
    """How long a request may take."""

    def left_s(self) -> float:
        """Return the seconds that are left. Raises TimeoutError when it is none."""

    def count(self, size: int) -> None:
        """Note that `size` bytes of a body were received."""


class RequestPace:
    """REQUEST_S from now and the time for `most_bytes` of bodies, but not after `deadline`.

    `deadline` is a time by `time.monotonic`.
    """

    def __init__(self, *, sent_bytes: int = 0, most_bytes: int, deadline: float = math.inf) -> None:
        self._ends = time.monotonic() + REQUEST_S + sent_bytes / LEAST_BYTES_PER_S
        self._deadline = deadline
        self._most_bytes = most_bytes
        self._bytes = 0

    def left_s(self) -> float:
        extra_s = min(self._bytes, self._most_bytes) / LEAST_BYTES_PER_S
        return left_until(min(self._ends + extra_s, self._deadline))

    def count(self, size: int) -> None:
        self._bytes += size


def left_until(end: float) -> float:
    """Return the seconds until a time by `time.monotonic`. Raises TimeoutError once it is over."""
    left_s = end - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out: the response arrives too slowly")
    return left_s


_pace: ContextVar[Pace] = ContextVar("pace")


@contextmanager
def paced(pace: Pace) -> Iterator[None]:
    """Give requests of this thread in the block that pace, on connections of this module."""
    token = _pace.set(pace)
    try:
        yield
    finally:
        _pace.reset(token)


class PacedResponse(http.client.HTTPResponse):
    """A response whose headers and body arrive at the pace of its request, or TimeoutError."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader = _PacedReader(self.fp.detach(), sock, _pace.get())
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        # here, where http.client closes the connection for it; urllib3 would leave it open
        assert_header_parsing(self.msg)
        lengths = ",".join(self.msg.get_all("content-length", ())).split(",")
        if len({length.strip() for length in lengths}) > 1:
            raise http.client.HTTPException(f"Content-Length is {lengths!r:.80}")
        self._reader.in_body = True


class _PacedReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, pace: Pace) -> None:
        self._raw, self._sock, self._pace = raw, sock, pace
        self.in_body = False  # before, nothing earns more time: headers have no end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(min(self._pace.left_s(), REQUEST_S))
        size = self._raw.readinto(buffer) or 0
        if self.in_body:
            self._pace.count(size)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedConnection(http.client.HTTPConnection):
    response_class = PacedResponse

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_pace.get().left_s())  # for all of `data`
        super().send(data)


class _HttpConnection(_PacedConnection, urllib3.connection.HTTPConnection):
    pass


class _HttpsConnection(_PacedConnection, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def paced_pool(connections: int) -> urllib3.PoolManager:
    """Return a pool whose requests must be sent in a `paced` block. It retries nothing."""
    pool = urllib3.PoolManager(maxsize=connections, retries=False)
    pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pool


def is_garbled(error: BaseException) -> bool:
    """Whether headers arrived that cannot be read; they would be the same again.

    One of the reasons is a limit of http.client: 100 headers. Only a private variable would raise
    it, and for the whole process; no object of dscache comes near it.
    """
    wrapped = (error, *error.args[1:])  # urllib3's ProtocolError
    kinds = (HeaderParsingError, http.client.LineTooLong)
    return any(isinstance(e, kinds) or type(e) is http.client.HTTPException for e in wrapped)


def is_no_http(error: BaseException) -> bool:
    """Whether something else than HTTP arrived."""
    kinds = (http.client.BadStatusLine, http.client.UnknownProtocol)
    return any(
        isinstance(e, kinds) and not isinstance(e, ConnectionError)
        for e in (error, *error.args[1:])
    )
