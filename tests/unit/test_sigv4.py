"""Our signatures are those of botocore."""

from __future__ import annotations

import datetime
from urllib.parse import parse_qsl, quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from dscache.store.sigv4 import Keys, presigned, signed_headers

AT = 1_700_000_000.5
NAMES = [
    "",
    "/datasets/photos_1.0.0_0123.zip",
    "/a b+c/é~%2F*'()!",
    "/x?list-type=2&prefix=a%2Fb&encoding-type=url",
    "/x?prefix=&events=s3%3AObjectCreated%3A%2A&ping=1&empty=",
]
ENDPOINTS = [
    "http://127.0.0.1:9000",
    "https://Store.Example.org",
    "https://store.example.org:443",
    "http://[::1]:9000",
]
TOKENS = [None, "a/token+=="]


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime.datetime.fromtimestamp(AT, datetime.UTC)
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: moment, raising=True
    )


def url_of(endpoint: str, name: str) -> str:
    path, mark, query = name.partition("?")
    return f"{endpoint}/bucket{quote(path, safe='/~')}{mark}{query}"


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", NAMES)
def test_headers(endpoint: str, name: str, token: str | None) -> None:
    url = url_of(endpoint, name)
    headers = {"Content-Type": "application/json", "if-none-match": "*", "x-amz-meta-a": " b  c "}
    request = AWSRequest("PUT", url, headers=dict(headers), data=b"body")
    theirs = botocore.auth.S3SigV4Auth(Credentials("who", "secret", token), "s3", "eu-west-1")
    theirs.add_auth(request)
    ours = signed_headers(
        Keys("who", "secret", token), "eu-west-1", "PUT", url, headers=headers, body=b"body", at=AT
    )
    assert ours == {key.lower(): value for key, value in request.headers.items()}


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", NAMES)
def test_urls(endpoint: str, name: str, token: str | None) -> None:
    url = url_of(endpoint, name)
    request = AWSRequest("GET", url)
    credentials = Credentials("who/a", "secret", token)
    theirs = botocore.auth.S3SigV4QueryAuth(credentials, "s3", "eu-west-1", expires=60)
    theirs.add_auth(request)
    ours = presigned(Keys("who/a", "secret", token), "eu-west-1", "GET", url, expires_s=60, at=AT)
    assert urlsplit(ours)._replace(query="") == urlsplit(request.url)._replace(query="")
    assert parse_qsl(urlsplit(ours).query, keep_blank_values=True) == parse_qsl(
        urlsplit(request.url).query, keep_blank_values=True
    )


def test_a_golden_url() -> None:
    """The example of the S3 API reference."""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    at = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp()
    url = "https://examplebucket.s3.amazonaws.com/test.txt"
    found = presigned(keys, "us-east-1", "GET", url, expires_s=86400, at=at)
    assert found.endswith(
        "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_keys_show_no_secret() -> None:
    assert repr(Keys("who", "secret", "token")) == "Keys(access_key='who')"
