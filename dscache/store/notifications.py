"""Bucket notifications as a stream of signals. They are a hint; the bucket is the truth.

`GET /<bucket>?events=…&prefix=…&ping=1`, streamed with urllib3.
The response's headers prove that the subscription is live; the server then sends one JSON line an
event and a ping a second (MINIO.md). Nothing is replayed: whoever listens looks at the bucket
after every `Connected`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3

from ..config import Config
from ..errors import AccessDenied, ConfigError, StoreUnreachable
from . import s3errors
from .signed_http import SignedHttp, ms_since

log = logging.getLogger(__name__)

EVENTS = "s3:ObjectCreated:*"  # the same for everybody, because of the mask bug (MINIO.md)
USER_METADATA = "x-amz-meta-"
PING_S = 1
READ_TIMEOUT_S = 5.0
REOPEN_S = 300.0
RETRY_S = (0.1, 0.5, 1.0, 2.0, 5.0)
ERROR_BODY_BYTES = 4096
SILENT_S = 2 * PING_S  # a stream that has brought no line by then brings none: something buffers it
SILENT_TRIES = 2  # a server that accepts the request but never sends headers does not stream

SILENT_STREAM = (
    "its stream brought nothing, not even a ping; does a proxy in between buffer answers?"
)


@dataclass(frozen=True)
class Connected:
    """The subscription is live from now on: look at the bucket."""


@dataclass(frozen=True)
class Created:
    """An object was written. `metadata` is its user metadata, names in lower case."""

    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """The stream broke off; it is opened again by itself."""

    reason: str


@dataclass(frozen=True)
class Unsupported:
    """No notifications come from this server, or not with these credentials: look instead.

    A Connected may follow, if it was the way to the server that kept them back.
    """

    reason: str


Signal = Connected | Created | Lost | Unsupported


class _Renew(Exception):
    """It is time for a new stream."""


class _NotStreaming(Exception):
    """The server will never stream to us; its argument says why."""


class Listener:
    """A background thread that delivers signals about names with a prefix until it is stopped.

    `deliver` is called in that thread and must not block. Use as a context manager.

    A stream that broke off is opened again soon, or after a pause between the two `return_s`
    (seconds): where many listen, they should not all come back at once. Every REOPEN_S a new stream
    replaces the old one; then there is a second Connected without a Lost before it.

    After a stream that brought nothing, not even a ping (a proxy that buffers answers lets only the
    headers through), no other is believed before its first line: Unsupported until then.
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
        self._doubted = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="dscache-listen", daemon=True)

    def start(self) -> Listener:
        """Begin listening in the background."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop from any thread; nothing is delivered after this.

        When connected, the thread is gone when this returns. While it still waits for the headers
        (at most a second on a server that streams) it ends by itself soon, and nobody waits for it:
        a client whose dataset is there should not.
        """
        self._stopped.set()
        with self._guard:
            connected = self._response is not None
            if self._response is not None:
                # it may have ended by itself just now, which urllib3 tells in three ways
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    self._response.shutdown()
        if connected and self._thread.is_alive():
            self._thread.join(READ_TIMEOUT_S + 1)

    def __enter__(self) -> Listener:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        failures, silent, streams = 0, 0, False
        with urllib3.PoolManager(retries=False) as pool:
            while not self._stopped.is_set():
                heard = refused = False
                doubted = self._doubted
                try:
                    for signal in self._stream(pool):
                        heard = streams = True
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
                    silent += timed_out and not streams
                if not streams and (refused or silent >= SILENT_TRIES):
                    log.debug("listen %s: %s; giving up", self._prefix, reason)
                    self._send(Unsupported(reason))
                    return  # but one that has streamed will again: it only has to start up
                failures = 0 if heard else failures + 1
                if not (doubted and self._doubted):  # which it has said
                    self._send(Unsupported(SILENT_STREAM) if self._doubted else Lost(reason))
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
        """One connection: Connected, then what was created. Ends at REOPEN_S or a stop."""
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
            with self._guard:
                self._response = response
            if not self._doubted:
                yield Connected()
            yield from self._events(response)
        finally:
            with self._guard:
                self._response = None
            response.close()

    def _events(self, response: urllib3.BaseHTTPResponse) -> Iterator[Signal]:
        opened, lines = time.monotonic(), 0
        # pings come once a second, so counting chunks would do; time is what is meant
        pings = 0
        try:
            for line in _split_lines(response.stream(1 << 16, decode_content=False)):
                lines += 1
                if self._doubted:
                    self._doubted = False
                    yield Connected()
                pings += line.startswith(b'{"Records":null')
                yield from parse_line(line)
                if self._stopped.is_set():
                    return
                if pings * PING_S >= REOPEN_S:
                    raise _Renew
        finally:
            if not lines and time.monotonic() - opened >= SILENT_S:
                self._doubted = True


def parse_line(line: bytes) -> Iterator[Created]:
    """The objects an event line tells of; nothing for pings and lines that are no events."""
    try:
        records = json.loads(line).get("Records") or ()
    except (ValueError, AttributeError):
        return
    for record in records:
        entry: dict[str, Any] = record.get("s3", {}).get("object", {})
        if entry.get("key"):
            metadata = {
                name.lower().removeprefix(USER_METADATA): value
                for name, value in (entry.get("userMetadata") or {}).items()
                if name.lower().startswith(USER_METADATA)  # content-type comes along
            }
            yield Created(entry["key"], metadata)


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    if response.status == 200:
        return
    code = s3errors.parse_error(response.read(ERROR_BODY_BYTES)).code or str(response.status)
    if response.status in (403, 400, 404, 405, 501):
        raise _NotStreaming(f"the server answered {code} to the listen request")
    raise OSError(f"the server answered {code} to the listen request")


def _split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split on newlines; a line may span chunks and a chunk may hold many lines."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())
