"""Read a stored dataset again and compare everything with its ready marker.

The zip is read once, by ranges and in order; nothing is kept on disk, and memory holds the member
table and one chunk. A zip that is not the one the marker describes is read all the same, so that
its problems can be told.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dscache_sdk.tfds import FEATURES_FILE_NAME, INFO_FILE_NAME, dataset_info_json

from ..download.ranges import Interrupted, RangeReader, Source
from ..errors import IntegrityError, StoreUnreachable
from ..folder.checksums import Checksums
from ..folder.contents import check_members
from ..protocol import layout
from ..protocol.manifests import Live, Member
from ..store.objects import Objects
from .recordcheck import RecordCheck
from .zipcheck import MAX_HEADER_BYTES, directory_problems, largest_directory, local_problems

RANGE_BYTES = 256 << 20  # one GET: a broken connection costs a part of that at most
MAX_DOCUMENT_BYTES = 16 << 20  # dataset_info.json, features.json
RETRY_PAUSES_S = (0.2, 1.0, 5.0)
STALL_S = 30.0
MARKER = "ready marker"  # a problem there: the zip cannot be read along its member table

Read = Callable[[int, int], Iterator[memoryview]]


@dataclass(frozen=True)
class Problem:
    """Something that is not as the ready marker says; `where` is a member, or the object."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass
class VerifyReport:
    """What was read and what was found."""

    key: str
    zip_key: str
    bytes: int = 0
    shards: int = 0
    records: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with stable names."""
        problems = [{"where": problem.where, "problem": problem.what} for problem in self.problems]
        return {**vars(self), "problems": problems, "ok": not self.problems}


def verify(
    store: Objects,
    live: Live,
    url: Callable[[], str],
    *,
    key: str,
    progress: Callable[[int, int], None] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> VerifyReport:
    """Read the zip of a live marker and report every problem.

    Args:
        store: where the zip is.
        live: the ready marker.
        url: gives a fresh presigned URL of `live.zip_key`.
        key: the key under which the marker was found.
        progress: called with (bytes read, bytes in all) now and then.
        sleep: for the pauses between attempts at a range that breaks off.

    Raises DatasetReplaced (retired while it was read), AccessDenied, StoreUnreachable, StoreError.
    """
    began = time.monotonic()
    report = VerifyReport(key, live.zip_key, shards=len(live.shards))
    report.problems += marker_problems(live, key)
    head = store.head(live.zip_key)
    if head is None:
        report.problems.append(Problem(live.zip_key, "is not in the bucket"))
        return report
    report.problems += _head_problems(live, head.etag, head.size)
    source = Source(url, name=live.zip_key, etag=head.etag, size=head.size)
    if not any(problem.where == MARKER for problem in report.problems):
        _Pass(live, _reading(source, sleep), head.size, report, progress).run()
    report.seconds = round(time.monotonic() - began, 3)
    return report


def marker_problems(live: Live, key: str) -> Iterator[Problem]:
    """What is wrong with the marker itself. Pure."""
    where = MARKER
    if live.spec.key != key:
        yield Problem(where, f"describes {live.spec.key}, but was found under {key}")
    expected = layout.archive(live.spec.key, live.generation)
    if live.zip_key != expected:
        yield Problem(where, f"names {live.zip_key}; generation {live.generation} is {expected}")
    try:
        check_members(live)
    except IntegrityError as error:
        yield Problem(where, str(error))
        return
    at = 0
    for member in live.members:
        if not 0 < member.offset - at <= MAX_HEADER_BYTES:
            yield Problem(where, f"{member.name} begins at byte {member.offset}, after byte {at}")
        at = member.offset + member.size
    names = {member.name for member in live.members}
    for name in sorted({INFO_FILE_NAME, FEATURES_FILE_NAME} - names):
        yield Problem(name, "is not in the ready marker")


def document_problems(live: Live, documents: Mapping[str, bytes]) -> Iterator[Problem]:
    """What dataset_info.json and features.json say otherwise than the marker. Pure."""
    for name, expected in ((INFO_FILE_NAME, info_of(live)), (FEATURES_FILE_NAME, live.features)):
        if name not in documents:
            continue
        try:
            found = json.loads(documents[name])
        except ValueError as error:
            yield Problem(name, f"is not JSON: {error}")
            continue
        for what in _differences(found, expected, ""):
            yield Problem(name, what)


def info_of(live: Live) -> Any:
    """What dataset_info.json must say, by the marker."""
    splits: dict[str, tuple[list[int], int]] = {}
    for shard in live.shards:
        counts, size = splits.get(shard.split, ([], 0))
        splits[shard.split] = ([*counts, shard.records], size + shard.size)
    return json.loads(dataset_info_json(live.spec.dataset_name, live.spec.handler_version, splits))


def _differences(found: Any, expected: Any, at: str) -> Iterator[str]:
    """The places where two JSON documents differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected}):
            yield from _differences(found.get(name), expected.get(name), f"{at}.{name}".lstrip("."))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _differences(one, other, f"{at}[{index}]")
    elif found != expected:
        says, by_marker = _short(found), _short(expected)
        yield f"{at or 'it'} is {says}, but by the ready marker it must be {by_marker}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _head_problems(live: Live, etag: str, size: int) -> Iterator[Problem]:
    if etag != live.zip_etag:
        yield Problem(
            live.zip_key,
            f"is another object than the ready marker describes (etag {etag} instead of "
            f"{live.zip_etag})",
        )
    if size != live.zip_size:
        yield Problem(live.zip_key, f"{size} bytes instead of {live.zip_size}")


class _Pass:
    """One pass over the zip, member by member."""

    def __init__(
        self,
        live: Live,
        read: Read,
        size: int,
        report: VerifyReport,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._live = live
        self._size = size
        self._report = report
        self._progress = progress or (lambda _done, _total: None)
        self._stream = _ZipStream(read, size)
        self._documents: dict[str, bytes] = {}

    def run(self) -> None:
        """Read to the end, or to where the zip ends too early."""
        for member in self._live.members:
            self._add(member.name, local_problems(self._bytes_until(member.offset), member))
            self._add(member.name, self._data_problems(member))
            self._progress(self._stream.position, self._size)
        self._report.problems += document_problems(self._live, self._documents)
        self._add(self._live.zip_key, self._tail_problems(self._live.members))
        self._report.bytes = self._stream.position
        self._progress(self._stream.position, self._size)

    def _add(self, where: str, found: Iterator[str]) -> None:
        self._report.problems += [Problem(where, what) for what in found]

    def _bytes_until(self, stop: int) -> bytes:
        return b"".join(bytes(chunk) for chunk in self._stream.until(stop))

    def _data_problems(self, member: Member) -> Iterator[str]:
        checksums, size = Checksums(), 0
        check = RecordCheck(member.size) if member.split else None
        document = bytearray()
        for chunk in self._stream.until(member.offset + member.size):
            checksums.update(chunk)
            size += len(chunk)
            if check is not None:
                check.update(chunk)
            elif size <= MAX_DOCUMENT_BYTES:
                document += chunk
            self._progress(self._stream.position, self._size)
        if size != member.size:
            yield f"the zip ends after {size} of its {member.size} bytes"
        if checksums.crc32 != member.crc32:
            yield f"CRC-32 {checksums.crc32:08x} instead of {member.crc32:08x}"
        if checksums.digest != member.digest:
            yield f"BLAKE3 {checksums.digest} instead of {member.digest}"
        if check is not None:
            yield from self._record_problems(member, check)
        else:
            self._documents[member.name] = bytes(document)

    def _record_problems(self, member: Member, check: RecordCheck) -> Iterator[str]:
        check.finish()
        self._report.records += check.records
        yield from check.problems
        if check.more:
            yield f"{check.more} more records with problems"
        if check.records != member.records:
            yield f"{check.records} records instead of {member.records}"

    def _tail_problems(self, members: Sequence[Member]) -> Iterator[str]:
        start, most = self._stream.position, largest_directory(members)
        if self._size - start > most:
            yield (
                f"{self._size - start} bytes follow the last member; a central directory of "
                f"{len(members)} members takes at most {most}"
            )
            return
        yield from directory_problems(self._bytes_until(self._size), start, members)


class _ZipStream:
    """The zip as one stream that is read up to given places."""

    def __init__(self, read: Read, size: int) -> None:
        self.position = 0
        self._size = size
        self._chunks = read(0, size)
        self._rest = memoryview(b"")

    def until(self, stop: int) -> Iterator[memoryview]:
        """The bytes from where we are up to `stop`, or to the zip's end if that comes first."""
        while self.position < min(stop, self._size):
            if not self._rest:
                self._rest = next(self._chunks)
            piece = self._rest[: stop - self.position]
            self._rest = self._rest[len(piece) :]
            self.position += len(piece)
            yield piece


def _reading(source: Source, sleep: Callable[[float], object]) -> Read:
    """Ranges of the source in order; one that breaks off is gone on with where it broke."""
    reader = RangeReader(source, STALL_S)

    def read(start: int, stop: int) -> Iterator[memoryview]:
        failures = 0
        while start < stop:
            try:
                for chunk in reader.read(start, min(start + RANGE_BYTES, stop)):
                    start += len(chunk)
                    failures = 0
                    yield chunk
            except Interrupted as error:
                failures += 1
                if failures > len(RETRY_PAUSES_S):
                    raise StoreUnreachable(
                        f"{source.name}: {failures} attempts in a row brought nothing: {error}"
                    ) from error
                sleep(RETRY_PAUSES_S[failures - 1] * random.uniform(0.5, 1.0))
        reader.close()

    return read
