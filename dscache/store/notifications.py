"""Bucket notifications as a stream of signals. They are hints; the bucket is the truth.

The stream is the response to `GET /<bucket>?events=…&prefix=…&ping=1`, read with urllib3. Its
headers prove that the subscription is live; then the server sends one JSON line for each event, and
a ping every second (docs/protocol.md#notifications). Nothing is replayed, so a listener's owner
checks the bucket after every `Connected`.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import urllib3

from ..config import Config
from ..errors import AccessDenied, ConfigError, StoreUnreachable
from ..terminal import logger
from . import s3errors
from .signed_http import SignedHttp, ms_since

log = logger(__name__)

# the same for all listeners, because of the mask bug (docs/protocol.md#notifications)
EVENTS = "s3:ObjectCreated:*"
USER_METADATA = "x-amz-meta-"
PING_S = 1
READ_TIMEOUT_S = 5.0
REOPEN_S = 300.0
RETRY_S = (0.1, 0.5, 1.0, 2.0, 5.0)
ERROR_BODY_BYTES = 4096
SILENT_S = 2 * PING_S  # a stream without a line by then is buffered on its way and brings none
SILENT_TRIES = 2  # a server that accepts the request but never sends headers does not stream

LINE_BYTES = 1 << 20  # metadata of an object has 2 KiB at most
SILENT_STREAM = "the stream carried no data, not even a ping; does a proxy buffer responses?"


@dataclass(frozen=True)
class Connected:
    """The subscription is live from now on: check the bucket."""


@dataclass(frozen=True)
class Created:
    """An object was written. `metadata` is its user metadata, with lower-case names."""

    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """The stream broke off; the listener reconnects."""

    reason: str


@dataclass(frozen=True)
class Unsupported:
    """The server sends no notifications, or not with these credentials: poll instead.

    A Connected may follow if a proxy was the cause and lets the stream through later.
    """

    reason: str


Signal = Connected | Created | Lost | Unsupported


class _Renew(Exception):
    """The stream has reached its age limit and must be replaced."""


class _NotStreaming(Exception):
    """The server will never stream to this client; the argument says why."""


class Listener:
    """A background thread that delivers signals about names with a prefix until it is stopped.

    `deliver` is called in that thread and must not block. Use as a context manager.

    A stream that broke off is opened again soon, or after a pause between the two `return_s`
    (seconds): many clients should not reconnect at the same moment. Every REOPEN_S a new stream
    replaces the old one; then a second Connected comes without a Lost before it.

    A proxy that buffers responses lets only the headers through. So after a stream that carried no
    line, not even a ping, the next one counts as connected at its first line only, and Unsupported
    is delivered until then.
    """

    def __init__(
        self,
        config: Config,
        prefix: str,
        deliver: Callable[[Signal], None],
        *,
        return_s: tuple[float, float] | None = None,
    ) -> None:
        self._return_s = return_s
        self._signed = SignedHttp(config)
        self._prefix = prefix
        self._deliver = deliver
        self._stopped = threading.Event()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._silent = False  # the last stream carried no line: do not trust headers alone
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="dscache-listen", daemon=True)

    def start(self) -> Listener:
        """Begin listening in the background."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop, from any thread; nothing is delivered after this.

        A connected listener's thread has ended when this returns. A thread that still waits for
        the headers (at most a second on a server that streams) ends by itself: a client whose
        dataset is ready should not wait for it.
        """
        self._stopped.set()
        with self._lock:
            connected = self._response is not None
            if self._response is not None:
                # the stream may have just ended, which urllib3 reports in three ways
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    self._response.shutdown()
        if connected and self._thread.is_alive():
            self._thread.join(READ_TIMEOUT_S + 1)

    def __enter__(self) -> Listener:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        failures, timeouts, has_streamed = 0, 0, False
        with urllib3.PoolManager(retries=False) as pool:
            while not self._stopped.is_set():
                connected = refused = False
                was_silent = self._silent
                try:
                    for signal in self._stream(pool):
                        connected = has_streamed = True
                        self._send(signal)
                    reason = "the server closed the stream"
                except _Renew:
                    log.debug("listen %s: opening a new stream", self._prefix)
                    continue
                except (_NotStreaming, AccessDenied, ConfigError) as error:
                    reason, refused = str(error), True
                except (urllib3.exceptions.HTTPError, OSError, StoreUnreachable) as error:
                    reason = s3errors.reason_of(error)
                    timed_out = isinstance(error, urllib3.exceptions.ReadTimeoutError)
                    timeouts += timed_out and not has_streamed
                except Exception as error:
                    reason = repr(error)[:200]
                    log.warning("listen %s: an error of dscache itself: %s", self._prefix, reason)
                    log.debug("listen %s: it came from here", self._prefix, exc_info=True)
                # a server that has streamed will again: it may be starting up
                if not has_streamed and (refused or timeouts >= SILENT_TRIES):
                    log.debug("listen %s: %s; giving up", self._prefix, reason)
                    self._send(Unsupported(reason))
                    return
                failures = 0 if connected else failures + 1
                if not (was_silent and self._silent):  # otherwise Unsupported was delivered before
                    self._send(Unsupported(SILENT_STREAM) if self._silent else Lost(reason))
                pause_s = self._pause_s(failures)
                log.debug("listen %s: %s; reconnecting in %.1f s", self._prefix, reason, pause_s)
                self._stopped.wait(pause_s)

    def _pause_s(self, failures: int) -> float:
        if self._return_s is not None:
            return random.uniform(*self._return_s)
        return RETRY_S[min(failures, len(RETRY_S) - 1)] * random.uniform(0.5, 1.5)

    def _send(self, signal: Signal) -> None:
        if not self._stopped.is_set():
            self._deliver(signal)

    def _stream(self, pool: urllib3.PoolManager) -> Iterator[Signal]:
        """Open one connection; yield Connected and the events until it ends or is stopped.

        Raises _Renew after REOPEN_S, _NotStreaming, and the errors of the connection.
        """
        query = {"events": EVENTS, "ping": str(PING_S), "prefix": self._prefix}
        url, headers = self._signed.prepare("GET", "", query=query)
        started = time.monotonic()
        response = pool.request(
            "GET",
            url,
            headers=headers,
            preload_content=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=READ_TIMEOUT_S, read=READ_TIMEOUT_S),
        )
        try:
            _check_status(response)
            log.debug("listen %s: %d in %.0f ms", self._prefix, response.status, ms_since(started))
            with self._lock:
                self._response = response
            if not self._silent:
                yield Connected()
            yield from self._events(response)
        finally:
            with self._lock:
                self._response = None
            response.close()

    def _events(self, response: urllib3.BaseHTTPResponse) -> Iterator[Signal]:
        opened, lines = time.monotonic(), 0
        try:
            for line in _split_lines(response.stream(1 << 16, decode_content=False)):
                lines += 1
                if self._silent:
                    self._silent = False
                    yield Connected()
                yield from parse_line(line)
                if self._stopped.is_set():
                    return
                if time.monotonic() - opened >= REOPEN_S:  # a ping comes every second
                    raise _Renew
        finally:
            if not lines and time.monotonic() - opened >= SILENT_S:
                self._silent = True


class _Stored(msgspec.Struct):
    key: str = ""
    userMetadata: dict[str, str] | None = None


class _Place(msgspec.Struct):
    object: _Stored = msgspec.field(default_factory=_Stored)


class _Record(msgspec.Struct):
    s3: _Place = msgspec.field(default_factory=_Place)


class _Event(msgspec.Struct):
    Records: list[_Record] | None = None


_event_decoder = msgspec.json.Decoder(_Event)


def parse_line(line: bytes) -> Iterator[Created]:
    """Yield the objects that an event line reports; nothing for pings and for other lines."""
    try:
        records = _event_decoder.decode(line).Records or ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for record in records:
        stored = record.s3.object
        if stored.key:
            metadata = {
                name.lower().removeprefix(USER_METADATA): value
                for name, value in (stored.userMetadata or {}).items()
                if name.lower().startswith(USER_METADATA)  # the server adds content-type
            }
            yield Created(stored.key, metadata)


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    if response.status == 200:
        return
    code = s3errors.parse_error(response.read(ERROR_BODY_BYTES)).code or str(response.status)
    message = f"the server answered {code} to the listen request"
    raise (_NotStreaming if response.status in (400, 403, 404, 405, 501) else OSError)(message)


def _split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split on newlines; a line may span chunks and a chunk may hold many lines.

    Raises OSError for a line that no store sends.
    """
    remainder = b""
    for chunk in chunks:
        *lines, remainder = (remainder + chunk).split(b"\n")
        if len(remainder) > LINE_BYTES:
            raise OSError(f"a line of the stream has more than {LINE_BYTES} bytes")
        yield from (line for line in lines if line.strip())
