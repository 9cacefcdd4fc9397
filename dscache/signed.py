"""Single requests to one bucket, over urllib3.

boto3 and its client take a quarter to half a second to import; most commands send a handful of
requests, and a marker should be read in less time than that.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import urllib3

from . import s3errors
from .config import Config
from .errors import StoreUnreachable
from .forks import PerProcess
from .sigv4 import Keys, presigned, signed_headers
from .transfer import Answer

if TYPE_CHECKING:
    from botocore.credentials import Credentials

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
ATTEMPTS = 3
RETRIED = frozenset({429, 499, 500, 502, 503, 504})
CONNECTIONS = 32  # kept open between requests; more threads than that open their own


class Signed:
    """Sends requests about one bucket. Safe to use from several threads, and after a fork.

    Errors of the connection and answers of an overloaded server are tried again, so a write whose
    answer is lost may meet its own first success (see `registers`).
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
    ) -> Answer:
        """Send and return the answer, whatever its status; `name` "" is the bucket itself.

        Raises StoreUnreachable, AccessDenied (no credentials).
        """
        try:
            return self.patiently(
                lambda: self._once(method, name, query or {}, headers or {}, body)
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise s3errors.unreachable(_reason(error), self._config) from error

    def patiently(self, once: Callable[[], Answer]) -> Answer:
        """What `once` answers; asked again when the connection breaks or the server is busy."""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._sleep(self._uniform(0, 2 ** (attempt - 1)))
            last = attempt == ATTEMPTS - 1
            try:
                answer = once()
            except (urllib3.exceptions.HTTPError, OSError, StoreUnreachable):
                if last:
                    raise
                continue
            if answer.status not in RETRIED or last:
                return answer
        raise AssertionError("the last attempt returns or raises")

    def presign(
        self, method: str, name: str, expires_s: int, *, query: Mapping[str, str] | None = None
    ) -> str:
        """A URL for one request without credentials, for the public endpoint if it is a GET.

        No request is made. The URL carries a signature: never log it.
        """
        public = self._config.public_endpoint.rstrip("/") if method == "GET" else ""
        url = _url(self._config, public or self._endpoint, name, query or {})
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
        """URL and headers of a request, signed for now. Raises AccessDenied (no credentials)."""
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
    ) -> Answer:
        url, signed = self.prepare(method, name, query=query, headers=headers, body=body)
        response = self._pool.get().request(method, url, headers=signed, body=body, redirect=False)
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, found, response.data)

    def _keys(self) -> Keys:
        """The configured credentials, else what botocore finds on this machine."""
        config = self._config
        if config.access_key:
            return Keys(config.access_key, config.secret_key, config.session_token or None)
        credentials = self._credentials.get()
        if credentials is None:
            raise s3errors.no_credentials(config)
        now = credentials.get_frozen_credentials()  # they renew themselves
        return Keys(now.access_key, now.secret_key, now.token)


def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=CONNECTIONS,
        retries=False,
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
    )


def _credentials() -> Credentials | None:
    import botocore.session

    return botocore.session.get_session().get_credentials()


def _url(config: Config, base: str, name: str, query: Mapping[str, str]) -> str:
    """The URL of an object, or of the bucket when `name` is "", percent-encoded."""
    url = f"{base}/{config.bucket}" + (f"/{quote(name, safe='/~')}" if name else "")
    return f"{url}?{urlencode(query, quote_via=quote, safe='~')}" if query else url


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "__cause__", None) or inner) or repr(error)
