"""What a store's refusals mean."""

from __future__ import annotations

import http.client

import pytest
import urllib3
from botocore.exceptions import EndpointConnectionError
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError

from dscache.config import Config
from dscache.errors import AccessDenied, NoSuchUpload, StoreError, StoreFull, StoreUnreachable
from dscache.store import s3errors

CONFIG = Config(endpoint="http://store.example:9000", bucket="bucket")


def body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>as {code} says</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", StoreUnreachable),
        (503, "RequestTimeout", StoreUnreachable),  # MinIO: no lock in time; nobody can list them
        (500, "XMinioHealSomething", StoreUnreachable),
        (507, "XMinioStorageFull", StoreFull),  # waiting does not mend it
        (507, "InsufficientStorage", StoreFull),
        (400, "XMinioAdminBucketQuotaExceeded", StoreFull),
        (501, "NotImplemented", StoreError),
        (400, "RequestTimeTooSkewed", StoreError),
        (403, "AccessDenied", AccessDenied),
        (404, "NoSuchUpload", NoSuchUpload),
    ],
)
def test_a_code_that_nobody_knows_means_what_its_status_says(
    status: int, code: str, kind: type[StoreError]
) -> None:
    """An overloaded server is waited for, whatever it calls that."""
    error = s3errors.error_of_response(status, body(code), "requests/x.json", CONFIG)
    assert type(error) is kind
    again = s3errors.error_of_code(code, "", "requests/x.json", CONFIG, status)
    assert type(again) is kind


def test_a_wrong_clock_is_named() -> None:
    error = s3errors.error_of_response(403, body("RequestTimeTooSkewed"), "x", CONFIG)
    assert "the clock of this machine" in str(error)


def test_messages_are_text_and_no_xml() -> None:
    text = b"<Error><Code>Odd</Code><Message>Bob&apos;s &lt;x&gt;</Message></Error>"
    assert "Bob's <x>" in str(s3errors.error_of_response(400, text, "x", CONFIG))


def test_an_error_body_has_a_code_and_a_message() -> None:
    assert s3errors.parse_error(body("SlowDown")) == ("SlowDown", "as SlowDown says")
    assert s3errors.parse_error(b"<html>502 Bad Gateway</html>") == ("", "")
    assert s3errors.parse_error(b"\xff") == ("", "")


REFUSED = ConnectionRefusedError(111, "Connection refused")
POOL = urllib3.HTTPConnectionPool("store.example")
CLOSED = http.client.RemoteDisconnected("Remote end closed connection without response")


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def raised_while_handling(error: Exception, handled: Exception) -> Exception:
    error.__context__ = handled
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (REFUSED, "[Errno 111] Connection refused"),
        (raised_from(HTTPError("x"), REFUSED), "[Errno 111] Connection refused"),
        (MaxRetryError(POOL, "/url", raised_from(HTTPError("x"), REFUSED)),
         "[Errno 111] Connection refused"),
        (ProtocolError("Connection aborted.", CLOSED), str(CLOSED)),
        (EndpointConnectionError(endpoint_url="u", error=raised_from(HTTPError("x"), REFUSED)),
         "[Errno 111] Connection refused"),
        (raised_while_handling(TimeoutError("timed out"), KeyError("key")), "timed out"),
        (TimeoutError(), "TimeoutError()"),
        (OSError("one line\nand another"), "one line"),
    ],
)  # fmt: skip
def test_the_reason_is_that_of_the_innermost_exception(error: Exception, reason: str) -> None:
    assert s3errors.reason_of(error) == reason
    assert f": {reason}; is the store running?" in str(s3errors.unreachable(error, CONFIG))
