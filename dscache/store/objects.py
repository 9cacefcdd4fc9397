"""The interface of an object store: one HTTP request per call. `s3.Store` implements it.

The protocol uses nothing else, so the same code runs against a real server and, request by
request, in the simulation of tests/simulation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .upload import BodyPiece

GET_LIMIT_BYTES = 1 << 20


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
class ListedObject:
    """An entry of a listing. `modified` is Unix time by the server's clock."""

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
    """What the protocol needs of a store. Each call is one request; a listing is one per page.

    Etags are without quotes. All methods raise AccessDenied, StoreUnreachable, BucketMissing or
    StoreError.
    """

    def now(self) -> float:
        """Return Unix time by the server's clock, as of its last response."""

    def get(self, name: str, *, limit_bytes: int = GET_LIMIT_BYTES) -> Object | None:
        """Return an object as it is stored, or None if it does not exist.

        A Content-Encoding is ignored. Reads one byte more than `limit_bytes` at most; raises
        ObjectTooLarge for a larger object.
        """

    def head(self, name: str) -> Head | None:
        """Return the object without its body, or None if it does not exist."""

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
        """Write and return the etag. Raises PreconditionFailed if a condition does not hold."""

    def delete(self, name: str) -> None:
        """Delete unconditionally (MinIO ignores If-Match here); the object need not exist."""

    def entries(self, prefix: str) -> Iterator[ListedObject]:
        """Yield all objects whose names begin with `prefix`, ordered by name."""

    def create_upload(self, name: str, metadata: Mapping[str, str]) -> str:
        """Start a multipart upload and return its id."""

    def upload_part(self, name: str, upload_id: str, number: int, body: Sequence[BodyPiece]) -> str:
        """Upload part `number` (from 1) and return its etag. Raises NoSuchUpload."""

    def list_parts(self, name: str, upload_id: str) -> Sequence[Part]:
        """Return the uploaded parts. Raises NoSuchUpload."""

    def complete_upload(self, name: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> str:
        """Complete with `If-None-Match: *` and return the etag.

        Raises PreconditionFailed, NoSuchUpload or InvalidPart.
        """

    def abort_upload(self, name: str, upload_id: str) -> None:
        """Abort; the upload need not exist."""


def multipart_etag(part_etags: Sequence[str]) -> str:
    """Return the etag a completed upload will have: the md5 of the parts' md5s, and their number.

    See docs/protocol.md#object-behaviour.
    """
    joined = b"".join(bytes.fromhex(etag) for etag in part_etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(part_etags)}"
