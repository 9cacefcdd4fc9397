"""Single signed requests to one bucket, over urllib3.

Importing boto3 and making its client take 0.25 to 0.5 s; most commands send a few requests and
should be done in less time than that.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import urllib3

from ..config import Config
from ..errors import ObjectTooLarge, StoreError, StoreUnreachable, UnreadableObject
from ..terminal import logger
from ..units import format_bytes
from . import s3errors
from .forks import PerProcess
from .pacing import REQUEST_S, RequestPace, is_garbled, is_no_http, paced, paced_pool
from .response import Response
from .s3errors import reason_of
from .sigv4 import Keys, presigned, signed_headers

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

log = logger(__name__)

CONNECT_TIMEOUT_S = 5.0
ATTEMPTS = 3
RETRIED = frozenset({429, 499, 500, 502, 503, 504})
LEAST_S = 1.0  # what a request gets even after the deadline: most are answered by then
RESPONSE_LIMIT_BYTES = 16 << 20  # of listings; objects have limits by their kind
ERROR_BYTES = 64 << 10  # of an error's body; the rest is not read
CONNECTIONS = 32  # kept open between requests; further threads open their own

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def deadline_in(seconds: float | None) -> Iterator[None]:
    """Limit all requests of this thread in the block to a deadline `seconds` from now.

    Without it, a store that accepts a connection and never responds would block for minutes. None
    sets no deadline. One that was set around the block holds, too.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    token = _deadline.set(min(deadline, _deadline.get()))
    try:
        yield
    finally:
        _deadline.reset(token)


def is_over() -> bool:
    """Whether the deadline of this thread has passed."""
    return time.monotonic() >= _deadline.get()


class SignedHttp:
    """Sends requests about one bucket. Safe to use from several threads, and after a fork.

    Retries connection errors and responses of an overloaded server. So a write whose response was
    lost may meet its own first success (see `protocol/registers.py`).
    """

    def __init__(
        self,
        config: Config,
        *,
        sleep: Callable[[float], object] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._config = config
        self._endpoint = config.require_endpoint()
        self._public = config.require_public_endpoint()
        self._sleep, self._uniform = sleep, uniform
        self._credentials = PerProcess(_credentials)
        self._pool = PerProcess(_pool)

    def send(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limit_bytes: int = RESPONSE_LIMIT_BYTES,
    ) -> Response:
        """Send a request and return the response, whatever its status.

        `name` "" is the bucket itself. Ends at the deadline, or when bodies arrive too slowly (see
        `pacing`). Raises StoreUnreachable; ObjectTooLarge for a body of more than `limit_bytes`;
        UnreadableObject for a response about an object, and StoreError for another one, that cannot
        be understood; AccessDenied or ConfigError when there are no credentials to sign with.
        """
        try:
            return self.with_retries(
                lambda: self._once(method, name, query or {}, headers or {}, body, limit_bytes),
                _request_line(method, name, query or {}),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            kind = s3errors.no_http if is_no_http(error) else s3errors.unreachable
            raise kind(error, self._config) from error

    def with_retries(self, send: Callable[[], Response], request_line: str) -> Response:
        """Call `send` until it returns a response that is final, at most ATTEMPTS times.

        Broken connections and an overloaded server are retried. `request_line` names the request
        in the log.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                pause_s = min(self._uniform(0, 2 ** (attempt - 1)), _left_s())
                log.debug("%s: retrying in %.1f s", request_line, pause_s)
                self._sleep(pause_s)
            last = attempt == ATTEMPTS - 1
            started = time.monotonic()
            try:
                response = send()
            except (urllib3.exceptions.HTTPError, OSError, StoreUnreachable) as error:
                log.debug("%s: %s after %.0f ms", request_line, reason_of(error), ms_since(started))
                if last or is_over():
                    raise
                continue
            log.debug("%s: %d in %.0f ms", request_line, response.status, ms_since(started))
            if response.status not in RETRIED or last:
                return response
        raise AssertionError("the last attempt returns or raises")

    def presign(
        self, method: str, name: str, expires_s: int, *, query: Mapping[str, str] | None = None
    ) -> str:
        """Return a URL for one request without credentials; a GET's is for the public endpoint.

        Sends nothing. The URL carries a signature: never log it.
        """
        base = self._public if method == "GET" else self._endpoint
        url = _url(self._config, base, name, query or {})
        region = self._config.region
        return presigned(self._keys(), region, method, url, expires_s=expires_s, at=time.time())

    def prepare(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[str, dict[str, str]]:
        """Return URL and headers of a request, signed with the current time. Raises as `send`."""
        url = _url(self._config, self._endpoint, name, query)
        keys, region = self._keys(), self._config.region
        return url, signed_headers(
            keys, region, method, url, headers=headers or {}, body=body, at=time.time()
        )

    def _once(
        self,
        method: str,
        name: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        limit_bytes: int,
    ) -> Response:
        url, signed = self.prepare(method, name, query=query, headers=headers, body=body)
        where = name or "a listing"
        unreadable = UnreadableObject if name and method in ("GET", "HEAD") else StoreError
        left_s = max(_left_s(), LEAST_S)
        pace = RequestPace(
            sent_bytes=len(body), most_bytes=limit_bytes, deadline=time.monotonic() + left_s
        )
        try:
            with paced(pace):
                response = self._pool.get().request(
                    method,
                    url,
                    headers=signed,
                    body=body,
                    redirect=False,
                    timeout=urllib3.Timeout(min(CONNECT_TIMEOUT_S, left_s), REQUEST_S),
                    preload_content=False,
                )
                received = _body(response, where, limit_bytes)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if is_garbled(error):
                raise unreadable(s3errors.garbled(error, where)) from error
            raise
        lowered = {header.lower(): value for header, value in response.headers.items()}
        return Response(response.status, lowered, received, where, unreadable)

    def _keys(self) -> Keys:
        """Return the configured credentials, or those that botocore finds on this machine.

        Raises AccessDenied if there are none that may be sent to the endpoint.
        """
        config = self._config
        if config.access_key:
            return Keys(config.access_key, config.secret_key, config.session_token or None)
        if not config.aws_sdk:
            raise s3errors.no_credentials(config)
        frozen = self._botocore_credentials()
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def _botocore_credentials(self) -> ReadOnlyCredentials:
        import botocore.exceptions

        try:
            credentials = self._credentials.get()
        except botocore.exceptions.BotoCoreError as error:
            raise s3errors.unusable_credentials(error, self._config) from error
        if credentials is None:
            raise s3errors.no_credentials(self._config)
        try:
            return credentials.get_frozen_credentials()  # renews them if they expire
        except botocore.exceptions.BotoCoreError as error:  # they existed, so retrying may help
            raise StoreUnreachable(f"the credentials could not be renewed: {error}") from error


def _body(response: urllib3.BaseHTTPResponse, where: str, limit_bytes: int) -> bytes:
    """Read the body as it was sent: an object's Content-Encoding is whatever its writer claims."""
    is_error = response.status >= 300
    limit_bytes = min(limit_bytes, ERROR_BYTES) if is_error else limit_bytes
    body = response.read(limit_bytes + 1, decode_content=False)
    if len(body) > limit_bytes:
        response.close()  # not back to the pool: the rest is still to come
        if is_error:
            return body
        raise ObjectTooLarge(
            f"{where}: larger than the {format_bytes(limit_bytes)} that it may have"
        )
    response.release_conn()
    return body


def _pool() -> urllib3.PoolManager:
    return paced_pool(CONNECTIONS)


def _left_s() -> float:
    return max(_deadline.get() - time.monotonic(), 0.0)


def _credentials() -> Credentials | None:
    import botocore.session

    return botocore.session.get_session().get_credentials()


def ms_since(started: float) -> float:
    """Return the milliseconds since `started`, a time by `time.monotonic`."""
    return 1000 * (time.monotonic() - started)


def _request_line(method: str, name: str, query: Mapping[str, str]) -> str:
    """Name a request in the log. Not by its URL, which may be signed."""
    return f"{method} {name}" if name else f"{method} ?prefix={query.get('prefix', '')}"


def _url(config: Config, base: str, name: str, query: Mapping[str, str]) -> str:
    """Return the percent-encoded URL of an object, or of the bucket if `name` is ""."""
    url = f"{base}/{config.bucket}" + (f"/{quote(name, safe='/~')}" if name else "")
    return f"{url}?{urlencode(query, quote_via=quote, safe='~')}" if query else url
