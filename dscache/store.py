"""The object store behind one small interface of single requests. The only module that knows S3.

Every public method of `Store` is one request (listings are one a page). The protocol code uses
nothing else, so it runs unchanged against the real store and, step by step, in a simulation.
"""

from __future__ import annotations

import email.utils
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import boto3
import botocore.config
import botocore.exceptions

from . import transfer
from .config import Config
from .errors import (
    AccessDenied,
    BucketMissing,
    InvalidPart,
    NoSuchUpload,
    PreconditionFailed,
    StoreError,
    StoreUnreachable,
)
from .transfer import Segment

PRESIGN_MAX_S = 7 * 86400


@dataclass(frozen=True)
class Object:
    """An object with its body."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class Head:
    """An object without its body. `metadata` names are lower case."""

    etag: str
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A line of a listing. `modified` is Unix time by the server's clock."""

    name: str
    etag: str
    size: int
    modified: float


@dataclass(frozen=True)
class Part:
    """An uploaded part of a multipart upload."""

    number: int
    etag: str
    size: int


class Objects(Protocol):
    """What the protocol needs of a store; each call is one request.

    Etags are without quotes. All methods raise AccessDenied, StoreUnreachable, BucketMissing or
    StoreError.
    """

    def now(self) -> float:
        """Unix time by the server's clock, as of its last answer."""

    def get(self, name: str) -> Object | None:
        """The object, or None when it is not there."""

    def head(self, name: str) -> Head | None:
        """The object without its body, or None."""

    def put(
        self,
        name: str,
        body: bytes,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> str:
        """Write and return the etag. Raises PreconditionFailed when a condition does not hold."""

    def delete(self, name: str) -> None:
        """Delete unconditionally (MinIO ignores If-Match here); an absent object is fine."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects whose name begins with `prefix`, in order of their names."""

    def create_upload(self, name: str, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload and return its id."""

    def upload_part(self, name: str, upload_id: str, number: int, body: Sequence[Segment]) -> str:
        """Upload part `number` (from 1) and return its etag. Raises NoSuchUpload."""

    def list_parts(self, name: str, upload_id: str) -> Sequence[Part]:
        """The parts that are there. Raises NoSuchUpload."""

    def complete_upload(self, name: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> str:
        """Complete with `If-None-Match: *`, return the etag.

        Raises PreconditionFailed, NoSuchUpload or InvalidPart.
        """

    def abort_upload(self, name: str, upload_id: str) -> None:
        """Abort; an unknown upload is fine."""


def multipart_etag(part_etags: Sequence[str]) -> str:
    """The etag a completed upload will have: md5 of the part md5s, and their number (MINIO.md)."""
    joined = b"".join(bytes.fromhex(etag) for etag in part_etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(part_etags)}"


class Store:
    """The bucket of a configuration, over boto3. Safe to use from several threads."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.bucket = config.bucket
        self._clock = clock
        self._ahead_s = 0.0
        self._client = _client(config, config.require_endpoint())
        public = config.public_endpoint.rstrip("/")
        self._signer = _client(config, public) if public else self._client

    def __repr__(self) -> str:
        return f"Store({self.config.endpoint!r}, bucket={self.bucket!r})"

    def now(self) -> float:
        return self._clock() + self._ahead_s

    def get(self, name: str) -> Object | None:
        answer = self._call("get_object", name, missing=True)
        if answer is None:
            return None
        try:
            body = answer["Body"].read()
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            raise StoreUnreachable(f"{name}: the answer broke off: {error}") from error
        return Object(body, _etag(answer))

    def head(self, name: str) -> Head | None:
        answer = self._call("head_object", name, missing=True)
        if answer is None:
            return None
        metadata = {k.lower(): v for k, v in answer.get("Metadata", {}).items()}
        return Head(_etag(answer), answer["ContentLength"], metadata)

    def put(
        self,
        name: str,
        body: bytes,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> str:
        extra: dict[str, Any] = {"Body": body, "ContentType": content_type}
        if if_none_match:
            extra["IfNoneMatch"] = "*"
        if if_match is not None:
            extra["IfMatch"] = if_match
        if metadata:
            extra["Metadata"] = dict(metadata)
        try:
            answer = self._call("put_object", name, **extra)
        except _Missing:  # If-Match on an absent object
            raise PreconditionFailed(f"{name}: it is not there any more") from None
        return _etag(answer)

    def delete(self, name: str) -> None:
        self._call("delete_object", name)

    def entries(self, prefix: str) -> Iterator[Entry]:
        token: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", None, Prefix=prefix, **token)
            for item in page.get("Contents", ()):
                yield Entry(
                    item["Key"],
                    item["ETag"].strip('"'),
                    item["Size"],
                    item["LastModified"].timestamp(),
                )
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def create_upload(self, name: str, metadata: Mapping[str, str]) -> str:
        answer = self._call(
            "create_multipart_upload", name, Metadata=dict(metadata), ContentType="application/zip"
        )
        return str(answer["UploadId"])

    def upload_part(self, name: str, upload_id: str, number: int, body: Sequence[Segment]) -> str:
        params = {"Bucket": self.bucket, "Key": name, "UploadId": upload_id, "PartNumber": number}
        url = self._client.generate_presigned_url("upload_part", params, ExpiresIn=3600)
        answer = transfer.put(url, body)
        if answer.status != 200:
            raise _status_error(answer, f"{name}, part {number}")
        return answer.headers["etag"].strip('"')

    def list_parts(self, name: str, upload_id: str) -> list[Part]:
        parts: list[Part] = []
        marker: dict[str, Any] = {}
        while True:
            page = self._call("list_parts", name, UploadId=upload_id, **marker)
            for item in page.get("Parts", ()):
                parts.append(Part(item["PartNumber"], item["ETag"].strip('"'), item["Size"]))
            if not page.get("IsTruncated"):
                return parts
            marker = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def complete_upload(self, name: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> str:
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        answer = self._call(
            "complete_multipart_upload",
            name,
            UploadId=upload_id,
            MultipartUpload={"Parts": listed},
            IfNoneMatch="*",
        )
        return _etag(answer)

    def abort_upload(self, name: str, upload_id: str) -> None:
        try:
            self._call("abort_multipart_upload", name, UploadId=upload_id)
        except NoSuchUpload:
            return

    def presign_get(self, name: str, *, expires_s: int = 3600) -> str:
        """A URL that GETs the object from the public endpoint. No request is made.

        `expires_s` at most 7 days. The URL carries a signature: never log it.
        """
        if not 1 <= expires_s <= PRESIGN_MAX_S:
            raise ValueError(f"expires_s: {expires_s} is not within 1 s and 7 days")
        params = {"Bucket": self.bucket, "Key": name}
        url = self._signer.generate_presigned_url("get_object", params, ExpiresIn=expires_s)
        return str(url)

    def _call(
        self, operation: str, name: str | None, *, missing: bool = False, **extra: Any
    ) -> Any:
        where = name if name is not None else f"listing of {extra.get('Prefix', '')!r}"
        if name is not None:
            extra["Key"] = name
        try:
            with mapped_errors(where, self.config):
                answer = getattr(self._client, operation)(Bucket=self.bucket, **extra)
        except _Missing:
            if missing:
                return None
            raise
        self._learn_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
        return answer

    def _learn_clock(self, date: str | None) -> None:
        if date:
            self._ahead_s = email.utils.parsedate_to_datetime(date).timestamp() - self._clock()


class _Missing(StoreError):
    """404 on an object (internal to this module)."""


_CODES: dict[str, type[StoreError]] = {
    "NoSuchKey": _Missing,
    "404": _Missing,
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
    "500": StoreUnreachable,
    "502": StoreUnreachable,
    "503": StoreUnreachable,
    "504": StoreUnreachable,
}


@contextmanager
def mapped_errors(where: str, config: Config) -> Iterator[None]:
    """Turn botocore's exceptions into ours, chained, with a remedy in the message."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _client_error(error, where, config) from error
    except (
        botocore.exceptions.NoCredentialsError,
        botocore.exceptions.PartialCredentialsError,
    ) as error:
        raise AccessDenied(
            f"no credentials for {config.endpoint}; set access_key and secret_key in a profile, "
            "or DSCACHE_ACCESS_KEY and DSCACHE_SECRET_KEY"
        ) from error
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
        raise StoreUnreachable(
            f"no answer from {config.endpoint} "
            f"(from {config.origin.get('endpoint', 'the caller')}): {_reason(error)}; "
            "is the store running? (`dscache up` starts a local one, `dscache doctor` checks)"
        ) from error
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise StoreError(f"{where}: {error}") from error


def _client_error(error: botocore.exceptions.ClientError, where: str, config: Config) -> StoreError:
    details = error.response.get("Error", {})
    code = str(details.get("Code", ""))
    kind = _CODES.get(code, StoreError)
    message = f"{where}: {details.get('Message') or code}"
    if kind is AccessDenied:
        message = (
            f"{where}: access denied ({code}) at {config.endpoint} "
            f"as {config.access_key or 'nobody'!r}; "
            "check the profile's access_key and secret_key and the user's policy"
        )
    if kind is BucketMissing:
        message = (
            f"bucket {config.bucket!r} does not exist at {config.endpoint}; "
            "create it or set `bucket`"
        )
    return kind(message)


def _status_error(answer: transfer.Answer, where: str) -> StoreError:
    """The error of an answer to a presigned request (its body is S3's XML)."""
    text = answer.body.decode("utf-8", "replace")
    code = text.partition("<Code>")[2].partition("</Code>")[0] or str(answer.status)
    kind = _CODES.get(code, StoreError)
    return kind(f"{where}: {code} ({answer.status})")


def _reason(error: botocore.exceptions.BotoCoreError) -> str:
    cause = error.kwargs.get("error") if hasattr(error, "kwargs") else None
    inner = getattr(cause, "reason", None) or cause or error
    return str(getattr(inner, "__context__", None) or inner).splitlines()[0][:200]


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _client(config: Config, endpoint: str) -> Any:
    """An S3 client: SigV4, path addressing, explicit region, no flexible checksums (MINIO.md)."""
    session = boto3.session.Session()
    return session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=config.region,
        aws_access_key_id=config.access_key or None,
        aws_secret_access_key=config.secret_key or None,
        aws_session_token=config.session_token or None,
        config=botocore.config.Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=16,
            retries={"mode": "standard", "max_attempts": 3},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
