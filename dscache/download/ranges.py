"""Ranged GETs of one zip over presigned URLs, on a keep-alive connection per thread.

http.client with a reused buffer: it costs a third of boto3's CPU time per byte
(docs/benchmarks.md), and nothing between the socket and the buffer copies.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from urllib.parse import urlsplit

from ..errors import (
    AccessDenied,
    BucketMissing,
    DatasetReplaced,
    IntegrityError,
    StoreError,
    StoreUnreachable,
)
from ..folder.checksums import CHUNK_BYTES
from ..store.s3errors import parse_error

CONNECT_TIMEOUT_S = 5.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_ERROR_BODY_BYTES = 16 << 10
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Interrupted(Exception):
    """The range broke off or was not answered; asking again may help (internal)."""


class Source:
    """The zip: where it is, and what it must be. Shared by all threads.

    `url` gives a fresh presigned URL each time it is called, and is called by one thread at a time.
    URLs carry a signature, so they never appear in messages.
    """

    def __init__(self, url: Callable[[], str], *, name: str, etag: str, size: int) -> None:
        self.name, self.etag, self.size = name, etag, size
        self._fresh = url
        self._lock = threading.Lock()
        self._url = ""

    def url(self, stale: str = "") -> str:
        """The URL to use; another one than `stale`, which was refused."""
        with self._lock:
            if self._url == stale:
                self._url = self._fresh()
            return self._url


class _Response(http.client.HTTPResponse):
    """An answer that hands over what has arrived instead of waiting for a full buffer, so that
    nothing is lost when the connection breaks."""

    def receive(self, buffer: memoryview) -> int:
        """Read once, at most to the end of the body; 0 at its end or when the peer closed."""
        left = self.length or 0
        read = self.fp.readinto1(buffer[:left]) if left else 0
        self.length = left - read
        return read


class RangeReader:
    """Reads ranges of a source. One thread reads; another may `abort`.

    `answer_s` is the time its last request took until the head of the answer was there.

    `stall_s`: a chunk of 256 KiB that has not arrived by then counts as a broken connection, which
    also ends a peer that drips. Proxy variables of the environment are not followed.
    """

    def __init__(self, source: Source, stall_s: float) -> None:
        self._source = source
        self._stall_s = stall_s
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._host = ("", "")
        self._aborted = False
        self.answer_s = 0.0
        self.buffer = memoryview(bytearray(CHUNK_BYTES))

    def read(self, start: int, stop: int) -> Generator[memoryview, None, None]:
        """Yield the bytes [start, stop) in order, in pieces of the one buffer: use each before the
        next is asked for.

        Raises Interrupted (everything received was yielded before), AccessDenied, DatasetReplaced,
        StoreError.
        """
        complete = False
        try:
            response = self._open(start, stop)
            for filled in self._chunks(response, stop - start):
                yield self.buffer[:filled]
            response.close()
            complete = True
        except ssl.SSLCertVerificationError as error:
            raise StoreUnreachable(
                f"{self._host[1]}: its certificate is not trusted ({error.verify_message}); "
                "set AWS_CA_BUNDLE to the file with its authority's certificate"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(f"{self._host[1]}: {_cause(error)}") from error
        finally:
            if not complete:
                self.close()

    def abort(self) -> None:
        """Make a read in another thread end at once; the reader is of no use afterwards."""
        self._aborted = True
        open_socket = self._socket
        if open_socket is not None:
            with contextlib.suppress(OSError):  # it may be closed meanwhile
                # not the method of an SSL socket, which pulls the rug from under a reading thread
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._socket = None

    def _chunks(self, response: _Response, size: int) -> Iterator[int]:
        while size > 0:
            filled, broken = self._fill(response, min(size, CHUNK_BYTES))
            if filled:
                yield filled
            if broken is not None:
                raise broken
            size -= filled

    def _fill(self, response: _Response, wanted: int) -> tuple[int, OSError | None]:
        """Fill the buffer with `wanted` bytes; fewer, and why, when the connection breaks."""
        deadline = time.monotonic() + self._stall_s
        filled = 0
        while filled < wanted:
            try:
                read = response.receive(self.buffer[filled:wanted])
            except OSError as error:
                return filled, error
            filled += read
            if not read:
                return filled, ConnectionError("the connection was closed early")
            if filled < wanted and time.monotonic() > deadline:
                return filled, TimeoutError(f"fewer than {wanted} bytes in {self._stall_s:g} s")
        return filled, None

    def _open(self, start: int, stop: int) -> _Response:
        """Ask for the range. A refused URL is renewed once: it may just have expired."""
        url = self._source.url()
        for renewed in (False, True):
            response = self._request(url, start, stop)
            if response.status == 206:
                self._check(response, start, stop)
                break
            error = refusal(response.status, response.read(_ERROR_BODY_BYTES), self._source)
            self.close()
            if renewed or not isinstance(error, AccessDenied):
                raise error
            url = self._source.url(stale=url)
        return response

    def _request(self, url: str, start: int, stop: int) -> _Response:
        parts = urlsplit(url)
        connection = self._connect(parts.scheme, parts.netloc)
        connection.putrequest("GET", f"{parts.path}?{parts.query}", skip_accept_encoding=True)
        connection.putheader("Range", f"bytes={start}-{stop - 1}")
        connection.putheader("If-Match", f'"{self._source.etag}"')
        connection.endheaders()
        asked_at = time.monotonic()
        response = connection.getresponse()
        self.answer_s = time.monotonic() - asked_at
        assert isinstance(response, _Response)
        return response

    def _connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        current = self._connection
        if current is not None and current.sock is not None and self._host == (scheme, netloc):
            return current
        self.close()
        self._host = (scheme, netloc)
        self._connection = connection = _connection(scheme, netloc)
        connection.connect()
        connection.sock.settimeout(self._stall_s)
        self._socket = connection.sock
        if self._aborted:  # looked at after the socket can be seen by `abort`
            raise ConnectionError("aborted")
        return connection

    def _check(self, response: _Response, start: int, stop: int) -> None:
        """The answer must be this range of this zip, whatever stands between us and the store."""
        found = response.getheader("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(found)
        if match is None or (int(match[1]), int(match[2])) != (start, stop - 1):
            raise StoreError(
                f"{self._source.name}: asked for bytes {start}-{stop - 1}, the answer says "
                f"{found or 'nothing'!r}; does a proxy stand between here and the store?"
            )
        if response.length != stop - start:
            raise StoreError(f"{self._source.name}: a range of {response.length} bytes was sent")
        etag = response.getheader("ETag", "").strip('"')
        if etag != self._source.etag or match[3] not in ("*", str(self._source.size)):
            raise _replaced(self._source, f"etag {etag}, {match[3]} bytes")


def refusal(status: int, body: bytes, source: Source) -> Exception:
    """The error of an answer that is not 206; Interrupted when asking again may help. Pure."""
    code, message = parse_error(body)
    what = f"{source.name}: {code or 'HTTP'} ({status})"
    if status in _RETRIED:
        return Interrupted(what)
    if status in (401, 403):
        return AccessDenied(
            f"{what}: a fresh URL was refused: {message or 'no reason given'}; check the "
            "profile's credentials, the user's policy, and the clock of this machine"
        )
    if code == "NoSuchBucket":
        return BucketMissing(f"{what}: the bucket does not exist")
    if status in (404, 412):
        return _replaced(source, code or str(status))
    if status == 416:
        return IntegrityError(f"{what}: the zip is shorter than its ready marker says")
    return StoreError(f"{what}: expected a partial answer (206)")


def _replaced(source: Source, found: str) -> DatasetReplaced:
    return DatasetReplaced(
        f"{source.name} is gone or another one (expected etag {source.etag}, {source.size} bytes; "
        f"found {found}): the dataset was retired meanwhile; get it again"
    )


def _connection(scheme: str, netloc: str) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
        connection = http.client.HTTPSConnection(netloc, timeout=CONNECT_TIMEOUT_S, context=context)
    elif scheme == "http":
        connection = http.client.HTTPConnection(netloc, timeout=CONNECT_TIMEOUT_S)
    else:
        raise StoreError(f"{scheme}://{netloc}: not an HTTP address")
    connection.response_class = _Response
    return connection


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing arrived in time ({error})"
    return str(error) or type(error).__name__
