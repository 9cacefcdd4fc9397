"""A simulated bucket: DESIGN §5 depends on these answers, which tests/store checks on MinIO."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dscache.errors import InvalidPart, NoSuchUpload, PreconditionFailed, StoreUnreachable
from dscache.store.objects import GET_LIMIT_BYTES, Head, ListedObject, Object, Part, multipart_etag
from dscache.store.upload import BodyPiece


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


@dataclass
class Stored:
    body: bytes
    etag: str
    metadata: dict[str, str]
    modified: float


class Fate(enum.Enum):
    """What becomes of a request."""

    ANSWERED = "answered"
    REPEATED = "its answer is lost, so it is sent again"
    UNREACHABLE = "the store does not answer"
    LATE = "the store does not answer, and does it later"


@dataclass
class Upload:
    name: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Bucket:
    """The state all actors share."""

    clock: float = 1_000_000.0
    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    uploads_begun: int = 0
    aborted: set[str] = field(default_factory=set)
    final_etag: Callable[[str], str] = str  # of a completed upload; given S3's
    page: int = 1000  # names in one page of a listing
    late: list[Callable[[], object]] = field(default_factory=list)


class SimulatedStore:
    """One actor's connection. `step(label)` is called before each request and may raise (a crash);
    `fate()` says what becomes of a write, and `read_fate()` of a read."""

    def __init__(
        self,
        bucket: Bucket,
        step: Callable[[str], None],
        fate: Callable[[], Fate] = lambda: Fate.ANSWERED,
        read_fate: Callable[[], Fate] = lambda: Fate.ANSWERED,
    ) -> None:
        self.bucket = bucket
        self._step = step
        self._fate = fate
        self._read_fate = read_fate

    def now(self) -> float:
        return self.bucket.clock

    def get(self, name: str, *, limit_bytes: int = GET_LIMIT_BYTES) -> Object | None:
        self._read(f"GET {name}")
        found = self.bucket.objects.get(name)
        return Object(found.body, found.etag) if found else None

    def head(self, name: str) -> Head | None:
        self._read(f"HEAD {name}")
        found = self.bucket.objects.get(name)
        return Head(found.etag, len(found.body), found.metadata) if found else None

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
        stored = Stored(body, md5(body), dict(metadata or {}), self.bucket.clock)
        self._write(
            f"PUT {name}", lambda: self._conditional_put(name, stored, if_none_match, if_match)
        )
        return stored.etag

    def _conditional_put(
        self, name: str, stored: Stored, if_none_match: bool, if_match: str | None
    ) -> None:
        found = self.bucket.objects.get(name)
        if (if_none_match and found) or (
            if_match is not None and (found is None or found.etag != if_match)
        ):
            raise PreconditionFailed(name)
        self.bucket.objects[name] = stored

    def delete(self, name: str) -> None:
        self._write(f"DELETE {name}", lambda: self.bucket.objects.pop(name, None))

    def entries(self, prefix: str) -> Iterator[ListedObject]:
        after = ""
        while True:
            self._read(f"LIST {prefix}" + (f" after {after}" if after else ""))
            listed = [
                ListedObject(name, stored.etag, len(stored.body), stored.modified)
                for name, stored in sorted(self.bucket.objects.items())
                if name.startswith(prefix) and name > after
            ]
            yield from listed[: self.bucket.page]
            if len(listed) <= self.bucket.page:
                return
            after = listed[self.bucket.page - 1].name

    def _read(self, label: str) -> None:
        self._step(label)
        if self._read_fate() is not Fate.ANSWERED:
            raise StoreUnreachable(label)

    def _write(self, label: str, write: Callable[[], object]) -> None:
        self._step(label)
        fate = self._fate()
        if fate in (Fate.UNREACHABLE, Fate.LATE):
            if fate is Fate.LATE:
                self.bucket.late.append(write)
            raise StoreUnreachable(label)
        write()
        if fate is Fate.REPEATED:
            self._step(f"again: {label}")  # others go on while the client waits for the answer
            write()

    def create_upload(self, name: str, metadata: Mapping[str, str]) -> str:
        self._read(f"CREATE UPLOAD {name}")
        self.bucket.uploads_begun += 1
        upload_id = f"upload-{self.bucket.uploads_begun}"
        self.bucket.uploads[upload_id] = Upload(name, dict(metadata))
        return upload_id

    def upload_part(self, name: str, upload_id: str, number: int, body: Sequence[BodyPiece]) -> str:
        data = b"".join(s if isinstance(s, bytes) else s.path.read_bytes() for s in body)

        def write() -> None:
            self._upload(upload_id).parts[number] = data

        self._write(f"UPLOAD PART {number} {name}", write)
        return md5(data)

    def list_parts(self, name: str, upload_id: str) -> list[Part]:
        self._read(f"LIST PARTS {name}")
        parts = self._upload(upload_id).parts
        return [Part(number, md5(data), len(data)) for number, data in sorted(parts.items())]

    def complete_upload(self, name: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> str:
        self._write(f"COMPLETE {name}", lambda: self._complete(name, upload_id, parts))
        return multipart_etag([etag for _, etag in parts])

    def _complete(self, name: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> None:
        if name in self.bucket.objects:
            raise PreconditionFailed(name)
        upload = self._upload(upload_id)
        for number, etag in parts:
            if number not in upload.parts or md5(upload.parts[number]) != etag:
                raise InvalidPart(f"{name} part {number}")
        body = b"".join(upload.parts[number] for number, _ in parts)
        etag = self.bucket.final_etag(multipart_etag([etag for _, etag in parts]))
        self.bucket.objects[name] = Stored(body, etag, upload.metadata, self.bucket.clock)
        del self.bucket.uploads[upload_id]

    def abort_upload(self, name: str, upload_id: str) -> None:
        self._write(f"ABORT {name}", lambda: self._abort(upload_id))

    def _abort(self, upload_id: str) -> None:
        self.bucket.uploads.pop(upload_id, None)
        self.bucket.aborted.add(upload_id)

    def _upload(self, upload_id: str) -> Upload:
        if upload_id not in self.bucket.uploads:
            raise NoSuchUpload(upload_id)
        return self.bucket.uploads[upload_id]
