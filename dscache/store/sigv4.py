"""AWS Signature Version 4 for S3: headers that sign a request, and presigned URLs. Pure.

Described in the S3 API reference under "Authenticating Requests (AWS Signature Version 4)". The
tests compare it with botocore's signer, whose import takes as long as all requests of a short
command.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Keys:
    """Credentials; `token` is set for temporary ones only."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def signed_headers(
    keys: Keys,
    region: str,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    at: float,
) -> dict[str, str]:
    """Return all headers of the request, with lower-case names; the signature covers the body.

    Path and query of `url` must be percent-encoded, all but unreserved characters (RFC 3986). `at`
    is Unix time, which the server compares with its own.
    """
    timestamp = _timestamp(at)
    digest = hashlib.sha256(body).hexdigest()
    signed = {name.lower(): value for name, value in headers.items()}
    signed |= {"x-amz-date": timestamp, "x-amz-content-sha256": digest}
    if keys.token:
        signed["x-amz-security-token"] = keys.token
    with_host = {**signed, "host": _host(url)}
    signature = _signature(keys, region, timestamp, _canonical(method, url, with_host, digest))
    signed["authorization"] = (
        f"{ALGORITHM} Credential={keys.access_key}/{_scope(region, timestamp)}, "
        f"SignedHeaders={_names(with_host)}, Signature={signature}"
    )
    return signed


def presigned(keys: Keys, region: str, method: str, url: str, *, expires_s: int, at: float) -> str:
    """Return the URL with a signature in its query, valid for `expires_s` from Unix time `at`."""
    timestamp = _timestamp(at)
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{_scope(region, timestamp)}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token:
        query["X-Amz-Security-Token"] = keys.token
    separator = "&" if "?" in url else "?"
    unsigned = f"{url}{separator}{urlencode(query, quote_via=quote, safe='~')}"
    canonical = _canonical(method, unsigned, {"host": _host(url)}, UNSIGNED)
    return f"{unsigned}&X-Amz-Signature={_signature(keys, region, timestamp, canonical)}"


def _timestamp(at: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))


def _scope(region: str, timestamp: str) -> str:
    return f"{timestamp[:8]}/{region}/s3/aws4_request"


def _host(url: str) -> str:
    """Return what the HTTP library sends as Host."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return host if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _names(headers: Mapping[str, str]) -> str:
    return ";".join(sorted(headers))


def _canonical(method: str, url: str, headers: Mapping[str, str], digest: str) -> str:
    """Return the canonical request; names of `headers` are lower-case."""
    parts = urlsplit(url)
    pairs = sorted(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
    query = "&".join(f"{name}={value}" for name, value in pairs)
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    return "\n".join([method, parts.path or "/", query, *lines, "", _names(headers), digest])


def _signature(keys: Keys, region: str, timestamp: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{ALGORITHM}\n{timestamp}\n{_scope(region, timestamp)}\n{digest}"
    key = f"AWS4{keys.secret_key}".encode()
    for part in (timestamp[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
