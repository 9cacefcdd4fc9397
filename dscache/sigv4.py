"""AWS Signature Version 4 for single S3 requests. Pure.

The format: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. It is
written out here because importing botocore's takes longer than reading a ready marker; a test
compares the two.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Keys:
    """Who signs. `token` is that of temporary credentials, or ""."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    keys: Keys,
    region: str,
    now: datetime.datetime,
) -> dict[str, str]:
    """The headers to send: those given (names in lower case), all of them signed, and the
    signature's own. `url` is percent-encoded already; `now` is in UTC."""
    at = now.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    sent = {**headers, "host": _host(url), "x-amz-content-sha256": digest, "x-amz-date": at}
    if keys.token:
        sent["x-amz-security-token"] = keys.token
    names = ";".join(sorted(sent))
    scope = _scope(at, region)
    signature = _signature(method, url, _query(urlsplit(url).query), sent, digest, keys, at, scope)
    sent["authorization"] = (
        f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}"
    )
    return sent


def presign(
    method: str, url: str, keys: Keys, region: str, expires_s: int, now: datetime.datetime
) -> str:
    """The URL with a signature in its query, good for `expires_s` seconds from `now` (UTC)."""
    at = now.strftime("%Y%m%dT%H%M%SZ")
    scope = _scope(at, region)
    signed = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{scope}",
        "X-Amz-Date": at,
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token:
        signed["X-Amz-Security-Token"] = keys.token
    added = "&".join(f"{name}={quote(value, safe='~')}" for name, value in signed.items())
    query = "&".join(filter(None, (urlsplit(url).query, added)))
    host = {"host": _host(url)}
    signature = _signature(method, url, _query(query), host, "UNSIGNED-PAYLOAD", keys, at, scope)
    return f"{url.partition('?')[0]}?{query}&X-Amz-Signature={signature}"


def _signature(
    method: str,
    url: str,
    query: str,
    headers: Mapping[str, str],
    digest: str,
    keys: Keys,
    at: str,
    scope: str,
) -> str:
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in sorted(headers))
    path = urlsplit(url).path or "/"
    request = "\n".join((method, path, query, lines, ";".join(sorted(headers)), digest))
    hashed = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{keys.secret_key}".encode()
    for word in scope.split("/"):
        key = _hmac(key, word)
    return _hmac(key, f"{ALGORITHM}\n{at}\n{scope}\n{hashed}").hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _scope(at: str, region: str) -> str:
    return f"{at[:8]}/{region}/s3/aws4_request"


def _query(query: str) -> str:
    """The canonical query: sorted, every name with a `=`."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, _, value in sorted(pairs))


def _host(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    default = parts.port == DEFAULT_PORTS.get(parts.scheme)
    return host.rpartition(":")[0] if default else host
