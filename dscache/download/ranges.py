"""Ranged GETs of one zip over presigned URLs, on one keep-alive connection per thread.

Uses http.client with a reused buffer: a third of boto3's CPU time per byte (docs/benchmarks.md),
and no copy between the socket and the buffer.
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
from typing import NamedTuple
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from ..errors import (
    AccessDenied,
    BucketMissing,
    DatasetReplaced,
    IntegrityError,
    StoreError,
    StoreUnreachable,
)
from ..folder.checksums import CHUNK_BYTES
from ..store.pacing import PacedResponse, is_garbled, left_until, paced
from ..store.response import parse_etag
from ..store.s3errors import garbled, parse_error
from ..terminal import logger

CONNECT_TIMEOUT_S = 5.0
_log = logger(__name__)
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_ERROR_BODY_BYTES = 16 << 10
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Interrupted(Exception):
    """A range broke off or was not answered; a retry may help (internal)."""


class Source:
    """The zip: its URL and its expected etag and size. Thread-safe.

    `url` returns a fresh presigned URL each time; only one thread at a time calls it. URLs contain
    a signature, so they never appear in messages.
    """

    def __init__(self, url: Callable[[], str], *, name: str, etag: str, size: int) -> None:
        self.name, self.etag, self.size = name, etag, size
        self._presign = url
        self._lock = threading.Lock()
        self._url = ""

    def url(self, stale: str = "") -> str:
        """Return the URL to use; not `stale`, which was refused."""
        with self._lock:
            if self._url == stale:
                self._url = self._presign()
            return self._url


class _StallPace:
    """The time for the headers of a response, and again for each chunk of its body."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self.restart()

    def restart(self) -> None:
        self._end = time.monotonic() + self._stall_s

    def left_s(self) -> float:
        return left_until(self._end)

    def count(self, size: int) -> None:
        """Chunks are counted where they are filled."""


class _Response(PacedResponse):
    """A response that returns the bytes received so far instead of waiting for a full buffer, so
    that none are lost when the connection breaks."""

    def receive(self, buffer: memoryview) -> int:
        """Read once into `buffer`; return the number of bytes, 0 at the end."""
        left = self.length or 0
        read = self.fp.readinto1(buffer[:left]) if left else 0
        self.length = left - read
        return read


class RangeReader:
    """Reads ranges of a source. One thread reads; another may call `abort`.

    Proxy variables of the environment are ignored.

    Args:
        source: the zip.
        stall_s: a chunk of 256 KiB that takes longer counts as a broken connection, even if single
            bytes keep arriving.

    Attributes:
        response_s: time from the last request to the headers of its response.
        buffer: holds the last piece that was read.
    """

    def __init__(self, source: Source, stall_s: float) -> None:
        self._source = source
        self._stall_s = stall_s
        self._pace = _StallPace(stall_s)
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._host = ("", "")
        self._aborted = False
        self.response_s = 0.0
        self.buffer = memoryview(bytearray(CHUNK_BYTES))

    def read(self, start: int, stop: int) -> Generator[memoryview, None, None]:
        """Yield the bytes [start, stop) in order. The pieces share a buffer: use each before
        requesting the next.

        Raises Interrupted (after everything received was yielded), AccessDenied, DatasetReplaced,
        StoreError, StoreUnreachable (the certificate is not trusted).
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
                f"{self._host[1]}: the certificate is not trusted ({error.verify_message}); "
                "set AWS_CA_BUNDLE to a file with the certificate of its authority"
            ) from error
        except (OSError, http.client.HTTPException, HTTPError) as error:
            if is_garbled(error):
                raise StoreError(garbled(error, self._source.name)) from error
            raise Interrupted(f"{self._host[1]}: {_cause(error)}") from error
        finally:
            if not complete:
                self.close()

    def abort(self) -> None:
        """End a read in another thread immediately. The reader cannot be used again."""
        self._aborted = True
        open_socket = self._socket
        if open_socket is not None:
            with contextlib.suppress(OSError):  # another thread may close it
                # not SSLSocket.shutdown, which discards the TLS state that the reading thread uses
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
        """Fill the buffer with `wanted` bytes.

        Returns the number of bytes, and the error if the connection broke before.
        """
        self._pace.restart()
        filled = 0
        while filled < wanted:
            try:
                read = response.receive(self.buffer[filled:wanted])
            except OSError as error:
                return filled, error
            filled += read
            if not read:
                return filled, ConnectionError("the connection was closed early")
        return filled, None

    def _open(self, start: int, stop: int) -> _Response:
        """Request the range. A refused URL is renewed once: it may have expired."""
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
            _log.debug(
                "%s: the URL was refused (%d); signing a new one",
                self._source.name,
                response.status,
            )
            url = self._source.url(stale=url)
        return response

    def _request(self, url: str, start: int, stop: int) -> _Response:
        parts = urlsplit(url)
        connection = self._connect(parts.scheme, parts.netloc)
        connection.putrequest("GET", f"{parts.path}?{parts.query}", skip_accept_encoding=True)
        connection.putheader("Range", f"bytes={start}-{stop - 1}")
        connection.putheader("If-Match", f'"{self._source.etag}"')
        connection.endheaders()
        sent_at = time.monotonic()
        self._pace.restart()
        with paced(self._pace):
            response = connection.getresponse()
        self.response_s = time.monotonic() - sent_at
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
        if self._aborted:  # checked only now, when `abort` can see the socket
            raise ConnectionError("aborted")
        return connection

    def _check(self, response: _Response, start: int, stop: int) -> None:
        """Check that the response is this range of this zip: a proxy may ignore the headers."""
        content_range = response.getheader("Content-Range", "")
        found = parse_content_range(content_range)
        if found is None or (found.start, found.stop) != (start, stop):
            raise StoreError(
                f"{self._source.name}: requested bytes {start}-{stop - 1}, but Content-Range is "
                f"{content_range or 'missing'!r}; is there a proxy in front of the store?"
            )
        if response.length != stop - start:
            raise StoreError(
                f"{self._source.name}: requested {stop - start} bytes, but Content-Length is "
                f"{response.length}"
            )
        header = response.getheader("ETag")
        etag = parse_etag(header or "")
        if etag is None:
            shown = f"the ETag {header[:80]!r}" if header else "no ETag"
            raise StoreError(
                f"{self._source.name}: the response has {shown}; is there a proxy in front of the "
                "store?"
            )
        if etag != self._source.etag or found.size not in (None, self._source.size):
            raise _replaced(self._source, f"etag {etag}, {found.size} bytes")


class ContentRange(NamedTuple):
    """The bytes [start, stop) of an object of `size` bytes; None: the server does not say."""

    start: int
    stop: int
    size: int | None


def parse_content_range(header: str) -> ContentRange | None:
    """Parse a Content-Range header; None if it is not one of bytes. Pure."""
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        return None
    size = None if match[3] == "*" else int(match[3])
    return ContentRange(int(match[1]), int(match[2]) + 1, size)


def refusal(status: int, body: bytes, source: Source) -> Exception:
    """Return the error for a response that is not 206; Interrupted if a retry may help. Pure."""
    code, message = parse_error(body)
    prefix = f"{source.name}: {code or 'HTTP'} ({status})"
    if status in _RETRIED:
        return Interrupted(prefix)
    if status in (401, 403):
        return AccessDenied(
            f"{prefix}: a fresh URL was refused: {message or 'no reason given'}; check the "
            "profile's credentials, the user's policy, and the clock of this machine"
        )
    if code == "NoSuchBucket":
        return BucketMissing(f"{prefix}: the bucket does not exist")
    if status in (404, 412):
        return _replaced(source, code or str(status))
    if status == 416:
        return IntegrityError(f"{prefix}: the zip is smaller than the ready marker says")
    return StoreError(f"{prefix}: expected a partial response (206)")


def _replaced(source: Source, found: str) -> DatasetReplaced:
    return DatasetReplaced(
        f"{source.name} was deleted or replaced (expected etag {source.etag}, {source.size} bytes; "
        f"found {found}): the dataset was retired; get it again"
    )


def _connection(scheme: str, netloc: str) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
        connection = http.client.HTTPSConnection(netloc, timeout=CONNECT_TIMEOUT_S, context=context)
    elif scheme == "http":
        connection = http.client.HTTPConnection(netloc, timeout=CONNECT_TIMEOUT_S)
    else:
        raise StoreError(f"{scheme}://{netloc}: not an HTTP URL")
    connection.response_class = _Response
    return connection


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
