"""Our signatures are those of botocore."""

from __future__ import annotations

import datetime
from unittest import mock
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from dscache import sigv4
from dscache.sigv4 import Keys

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=12)
KEYS = st.builds(Keys, st.just("AKID"), st.just("se/cr+et"), st.sampled_from(["", "to/ken=="]))
BASES = ("http://127.0.0.1:9000", "https://s3.example.org", "https://s3.example.org:443")


def theirs(keys: Keys) -> Credentials:
    return Credentials(keys.access_key, keys.secret_key, keys.token or None)


def url_of(base: str, name: str, query: dict[str, str]) -> str:
    asked = urlencode(query, quote_via=quote, safe="~")
    return f"{base}/bucket/{quote(name, safe='/~')}" + (f"?{asked}" if asked else "")


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE"]),
    base=st.sampled_from(BASES),
    name=TEXT,
    query=st.dictionaries(TEXT.filter(bool), TEXT, max_size=4),
    headers=st.dictionaries(
        st.sampled_from(["if-match", "if-none-match", "content-type", "x-amz-meta-progress"]),
        st.text("abc {}:,1", max_size=9),
    ),
    body=st.binary(max_size=9),
    keys=KEYS,
)
def test_headers(
    method: str,
    base: str,
    name: str,
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes,
    keys: Keys,
) -> None:
    url = url_of(base, name, query)
    request = AWSRequest(method, url, headers=headers, data=body)
    request.context["payload_signing_enabled"] = True
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        S3SigV4Auth(theirs(keys), "s3", "us-east-1").add_auth(request)
    ours = sigv4.sign(method, url, headers, body, keys, "us-east-1", NOW)
    assert ours["authorization"] == request.headers["Authorization"]


@given(
    base=st.sampled_from(BASES),
    name=TEXT,
    query=st.dictionaries(st.sampled_from(["partNumber", "uploadId"]), TEXT.filter(bool)),
    keys=KEYS,
    expires_s=st.integers(1, 604800),
)
def test_urls(base: str, name: str, query: dict[str, str], keys: Keys, expires_s: int) -> None:
    url = url_of(base, name, query)
    request = AWSRequest("GET", url)
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        S3SigV4QueryAuth(theirs(keys), "s3", "us-east-1", expires=expires_s).add_auth(request)
    ours = sigv4.presign("GET", url, keys, "us-east-1", expires_s, NOW)
    assert ours.partition("?")[0] == request.url.partition("?")[0]
    assert parse_qs(urlsplit(ours).query) == parse_qs(urlsplit(request.url).query)


def test_secrets_are_not_shown() -> None:
    assert repr(Keys("AKID", "secret", "token")) == "Keys(access_key='AKID')"


@pytest.mark.parametrize("url", ["http://h:80/b", "http://user:pw@h/b"])
def test_hosts(url: str) -> None:
    assert sigv4.sign("GET", url, {}, b"", Keys("a", "b"), "r", NOW)["host"] == "h"
