"""Map S3 error codes and HTTP statuses to the errors of dscache. Pure."""

from __future__ import annotations

import html
from typing import NamedTuple

from ..config import Config
from ..errors import (
    AccessDenied,
    BucketMissing,
    ConfigError,
    InvalidPart,
    NoSuchUpload,
    PreconditionFailed,
    StoreError,
    StoreFull,
    StoreUnreachable,
)


class ErrorBody(NamedTuple):
    """The body of an error response; both are "" when there is none (HEAD) or it is not S3's."""

    code: str
    message: str


class Missing(StoreError):
    """404 on an object (internal to the room)."""


MAX_TEXT = 500  # characters of a message of others

CODES: dict[str, type[StoreError]] = {
    "NoSuchKey": Missing,
    "404": Missing,
    "NoSuchBucket": BucketMissing,
    "PreconditionFailed": PreconditionFailed,
    "ConditionalRequestConflict": PreconditionFailed,
    "412": PreconditionFailed,
    "NoSuchUpload": NoSuchUpload,
    "InvalidPart": InvalidPart,
    "InvalidPartOrder": InvalidPart,
    "AccessDenied": AccessDenied,
    "403": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "ExpiredToken": AccessDenied,
    "SlowDown": StoreUnreachable,
    "SlowDownRead": StoreUnreachable,
    "SlowDownWrite": StoreUnreachable,
    "InternalError": StoreUnreachable,
    "ServiceUnavailable": StoreUnreachable,
    "XMinioServerNotInitialized": StoreUnreachable,
    "XMinioStorageFull": StoreFull,
    "XMinioAdminBucketQuotaExceeded": StoreFull,
    "499": StoreUnreachable,  # MinIO while it shuts down
    "500": StoreUnreachable,
    "502": StoreUnreachable,
    "503": StoreUnreachable,
    "504": StoreUnreachable,
    "507": StoreFull,
}
NO_SPACE = "no space left on device"


def error_of_code(
    code: str, message: str, where: str, config: Config, status: int = 0
) -> StoreError:
    """Return the error for an S3 code (the status if the response has no body), with a remedy.

    Servers have many codes for a temporary failure; the `status` decides for those not in CODES.
    """
    code, message = code[:MAX_TEXT], message[:MAX_TEXT]
    kind = CODES.get(code) or (CODES.get(str(status)) if status >= 500 else None) or StoreError
    if NO_SPACE in message:  # MinIO: an internal error until it has measured its disk again
        kind = StoreFull
    if code == "RequestTimeTooSkewed":
        return StoreError(
            f"{where}: the clock of this machine and that of {config.endpoint} differ too much "
            f"({code}); correct the wrong one"
        )
    if kind is AccessDenied:
        identity = repr(config.access_key) if config.access_key else "the AWS SDK's identity"
        return AccessDenied(
            f"{where}: access denied ({code}) at {config.endpoint} as {identity}; "
            "check the profile's access_key and secret_key and the user's policy"
        )
    if kind is BucketMissing:
        return BucketMissing(
            f"bucket {config.bucket!r} does not exist at {config.endpoint}; "
            "create it or set `bucket`"
        )
    if kind is StoreFull:
        return StoreFull(
            f"{where}: the store at {config.endpoint} is full ({message or code}); remove what "
            "nobody needs, or give it more space"
        )
    return kind(f"{where}: {message or code}")


def parse_error(body: bytes) -> ErrorBody:
    """Return the code and the message in the XML body of an error response."""
    text = body.decode("utf-8", "replace")
    return ErrorBody(_element(text, "Code"), html.unescape(_element(text, "Message")))


def error_of_response(status: int, body: bytes, where: str, config: Config) -> StoreError:
    """Return the error for an HTTP response, with or without a body."""
    code, message = parse_error(body)
    return error_of_code(code or str(status), message, where, config, status)


def unreachable(error: Exception, config: Config) -> StoreUnreachable:
    """Return the error for a connection that could not be opened or that broke."""
    return StoreUnreachable(
        f"no answer from {config.endpoint} "
        f"(from {config.origin.get('endpoint', 'the caller')}): {reason_of(error)}; "
        "is the store running? (`dscache up` starts a local one, `dscache doctor` checks)"
    )


def no_http(error: Exception, config: Config) -> StoreError:
    """Return the error for an endpoint that answers with something else than HTTP."""
    return StoreError(
        f"{config.endpoint} (from {config.origin.get('endpoint', 'the caller')}): the response is "
        f"not HTTP ({reason_of(error)!r}); is that the endpoint of an object store?"
    )


def garbled(error: Exception, where: str) -> str:
    """Return the message for a response whose headers cannot be read."""
    return f"{where}: the headers of the response cannot be read ({reason_of(error)})"


def reason_of(error: BaseException) -> str:
    """Say in one line why a connection failed.

    That is the text of the innermost exception: urllib3 and botocore wrap it, each in its own way.

    `__context__` is not followed: it may be an exception that a caller is handling.
    """
    wrapped = (
        getattr(error, "kwargs", {}).get("error"),  # botocore
        getattr(error, "reason", None),  # urllib3's MaxRetryError
        error.__cause__,
        *error.args[1:],  # urllib3's ProtocolError
    )
    for inner in wrapped:
        if isinstance(inner, BaseException):
            return reason_of(inner)
    return (str(error).strip() or repr(error)).splitlines()[0][:200]


def no_credentials(config: Config) -> AccessDenied:
    """Return the error for a configuration without credentials."""
    return AccessDenied(
        f"no credentials for {config.endpoint}; set access_key and secret_key in a profile, "
        "or DSCACHE_ACCESS_KEY and DSCACHE_SECRET_KEY"
    )


def unusable_credentials(error: Exception, config: Config) -> StoreError | ConfigError:
    """Return the error for AWS configuration of this machine that gives no credentials."""
    if type(error).__name__ in ("ProfileNotFound", "ConfigParseError", "ConfigNotFound"):
        return ConfigError(f"credentials for {config.endpoint}: {error} (see $AWS_PROFILE)")
    return AccessDenied(f"credentials for {config.endpoint} could not be loaded: {error}")


def _element(text: str, name: str) -> str:
    """The content of an element, up to MAX_TEXT characters: a message is one line."""
    return text.partition(f"<{name}>")[2].partition(f"</{name}>")[0][:MAX_TEXT]
