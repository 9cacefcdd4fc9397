"""`Store`: the bucket of a configuration, over the S3 API. The methods are those of `Objects`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..config import Config
from ..errors import NoSuchUpload, PreconditionFailed, StoreError, StoreUnreachable
from ..terminal import logger
from . import s3errors, upload
from .forks import PerProcess
from .listing import parse_page
from .objects import GET_LIMIT_BYTES, Head, ListedObject, Object, Part
from .response import Response
from .s3errors import Missing
from .signed_http import SignedHttp, is_over, ms_since
from .upload import BodyPiece

log = logger(__name__)

PRESIGN_MAX_S = 7 * 86400
PART_URL_S = 3600
METADATA = "x-amz-meta-"
MAX_EMPTY_PAGES = 100  # in a row; a page may hold none that matches


class Store:
    """The bucket of a configuration. Safe to use from several threads, and after a fork.

    Single objects and listings are plain signed requests; boto3 is loaded for multipart uploads.
    """

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.bucket = config.bucket
        self._clock = clock
        self._server_ahead_s = 0.0
        self._signed = SignedHttp(config)
        self._boto = PerProcess(self._connect)

    def __repr__(self) -> str:
        return f"Store({self.config.endpoint!r}, bucket={self.bucket!r})"

    def now(self) -> float:
        return self._clock() + self._server_ahead_s

    def get(self, name: str, *, limit_bytes: int = GET_LIMIT_BYTES) -> Object | None:
        response = self._send("GET", name, limit_bytes=limit_bytes)
        return None if response is None else Object(response.body, response.etag)

    def head(self, name: str) -> Head | None:
        response = self._send("HEAD", name)
        if response is None:
            return None
        metadata = {
            header.removeprefix(METADATA): value
            for header, value in response.headers.items()
            if header.startswith(METADATA)
        }
        return Head(response.etag, response.size, metadata)

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
        headers = {"content-type": content_type}
        if if_none_match:
            headers["if-none-match"] = "*"
        if if_match is not None:
            headers["if-match"] = if_match
        for key, value in (metadata or {}).items():
            if not value.isascii():
                raise StoreError(
                    f"{name}: metadata {key}: {value!r} is not ASCII, as headers must be"
                )
            headers[f"{METADATA}{key}"] = value
        response = self._send("PUT", name, headers=headers, body=body)
        if response is None:  # If-Match on an absent object
            raise PreconditionFailed(f"{name}: does not exist any more")
        return response.etag

    def delete(self, name: str) -> None:
        self._send("DELETE", name)

    def entries(self, prefix: str) -> Iterator[ListedObject]:
        where = f"listing of {prefix!r}"
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        tokens, empty_pages = set[str](), 0
        while True:
            response = self._send("GET", "", where=where, query=query)
            page = parse_page(response.body if response else b"", prefix)
            yield from page.entries
            if not page.next:
                return
            empty_pages = 0 if page.entries else empty_pages + 1
            if page.next in tokens or empty_pages >= MAX_EMPTY_PAGES:
                raise StoreError(f"{where}: it does not get on; the store repeats itself")
            if is_over():
                raise StoreUnreachable(f"{where}: the time is up after {len(tokens) + 1} pages")
            tokens.add(page.next)
            query["continuation-token"] = page.next

    def create_upload(self, name: str, metadata: Mapping[str, str]) -> str:
        response = self._call(
            "create_multipart_upload", name, Metadata=dict(metadata), ContentType="application/zip"
        )
        with _decoding(name):
            return str(response["UploadId"])

    def upload_part(self, name: str, upload_id: str, number: int, body: Sequence[BodyPiece]) -> str:
        query = {"partNumber": str(number), "uploadId": upload_id}
        where = f"{name}, part {number}"
        response = self._signed.with_retries(
            lambda: upload.put(
                self._signed.presign("PUT", name, PART_URL_S, query=query), body, where=where
            ),
            f"PUT {name} part {number}",
        )
        if response.status != 200:
            raise s3errors.error_of_response(response.status, response.body, where, self.config)
        return response.etag

    def list_parts(self, name: str, upload_id: str) -> list[Part]:
        parts: list[Part] = []
        marker: dict[str, Any] = {}
        while True:
            page = self._call("list_parts", name, UploadId=upload_id, **marker)
            with _decoding(name):
                for item in page.get("Parts", ()):
                    parts.append(Part(item["PartNumber"], item["ETag"].strip('"'), item["Size"]))
                if not page.get("IsTruncated"):
                    return parts
                reached = int(page["NextPartNumberMarker"])
            if reached <= marker.get("PartNumberMarker", 0):
                raise StoreError(f"{name}: the list of its parts does not get on")
            marker = {"PartNumberMarker": reached}

    def complete_upload(self, name: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> str:
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        response = self._call(
            "complete_multipart_upload",
            name,
            UploadId=upload_id,
            MultipartUpload={"Parts": listed},
            IfNoneMatch="*",
        )
        with _decoding(name):
            return str(response["ETag"]).strip('"')

    def abort_upload(self, name: str, upload_id: str) -> None:
        try:
            self._call("abort_multipart_upload", name, UploadId=upload_id)
        except NoSuchUpload:
            return

    def presign_get(self, name: str, *, expires_s: int = 3600) -> str:
        """Return a URL that GETs the object from the public endpoint. Sends nothing.

        `expires_s` is 1 s to 7 days. The URL carries a signature: never log it.
        """
        if not 1 <= expires_s <= PRESIGN_MAX_S:
            raise ValueError(f"expires_s: {expires_s} is not between 1 s and 7 days")
        return self._signed.presign("GET", name, expires_s)

    def _send(self, method: str, name: str, *, where: str = "", **options: Any) -> Response | None:
        """Send a request; return the response, or None for an object that does not exist."""
        response = self._signed.send(method, name, **options)
        if response.sent_at is not None:
            self._server_ahead_s = response.sent_at - self._clock()
        if response.status < 300:
            return response
        error = s3errors.error_of_response(
            response.status, response.body, where or name, self.config
        )
        if isinstance(error, Missing) and name:
            return None
        raise error

    @property
    def _client(self) -> Any:
        return self._boto.get()

    def _connect(self) -> Any:
        if not (self.config.access_key or self.config.aws_sdk):
            raise s3errors.no_credentials(self.config)
        with mapped_errors("", self.config):
            return _client(self.config, self.config.require_endpoint())

    def _call(self, operation: str, name: str, **extra: Any) -> Any:
        """Call an operation of boto3 on an object."""
        started = time.monotonic()
        try:
            with mapped_errors(name, self.config):
                response = getattr(self._client, operation)(Bucket=self.bucket, Key=name, **extra)
        except StoreError as error:
            log.debug("%s %s: %s in %.0f ms", operation, name, error, ms_since(started))
            raise
        log.debug("%s %s: ok in %.0f ms", operation, name, ms_since(started))
        return response


@contextmanager
def _decoding(where: str) -> Iterator[None]:
    """Raise StoreError in place of the errors of decoding what boto3 returned."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{where}: the response is not understood ({error!r}); is the endpoint that of an "
            "object store?"
        ) from error


@contextmanager
def mapped_errors(where: str, config: Config) -> Iterator[None]:
    """Raise errors of dscache in place of botocore's, chained, with a remedy in the message."""
    import botocore.exceptions as botocore_errors

    try:
        yield
    except botocore_errors.ClientError as error:
        details = error.response.get("Error", {})
        code, message = str(details.get("Code", "")), str(details.get("Message") or "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise s3errors.error_of_code(code, message, where, config, status) from error
    except (botocore_errors.NoCredentialsError, botocore_errors.PartialCredentialsError) as error:
        raise s3errors.no_credentials(config) from error
    except (botocore_errors.HTTPClientError, botocore_errors.ConnectionError) as error:
        raise s3errors.unreachable(error, config) from error
    except (botocore_errors.BotoCoreError, ValueError) as error:
        raise StoreError(f"{where}: {str(error)[: s3errors.MAX_TEXT]}") from error


def _client(config: Config, endpoint: str) -> Any:
    """Make a boto3 client: SigV4, path addressing, explicit region, no flexible checksums.

    See docs/protocol.md#object-behaviour.
    """
    import boto3
    import botocore.config

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
