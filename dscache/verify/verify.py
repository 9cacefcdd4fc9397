"""Read a stored dataset again and compare all of it with its ready marker.

The zip is read once, in order; nothing is kept on disk, and memory holds only the member table and
one chunk. A zip with another etag than the marker's is read too, so that all problems are reported.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dscache_sdk.tfds import FEATURES_FILE_NAME, INFO_FILE_NAME, dataset_info_json

from ..download.fetch import ADVANCE_BYTES
from ..download.ranges import Interrupted, RangeReader, Source
from ..errors import IntegrityError, StoreUnreachable
from ..folder.checksums import Checksums
from ..folder.contents import check_members
from ..protocol import layout
from ..protocol.manifests import Live, Member
from ..store.objects import Objects
from .recordcheck import RecordCheck
from .zipcheck import MAX_HEADER_BYTES, directory_problems, largest_directory, local_problems

RANGE_BYTES = 256 << 20  # of one GET
MAX_DOCUMENT_BYTES = 16 << 20  # dataset_info.json, features.json
RETRY_PAUSES_S = (0.2, 1.0, 5.0)
STALL_S = 30.0
MARKER = "ready marker"  # with a problem there, the zip is not read: its member table is wrong

Read = Callable[[int, int], Iterator[memoryview]]


@dataclass(frozen=True)
class Problem:
    """A difference from the ready marker. `where` is a member, an object, or the marker itself."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass
class VerifyReport:
    """What was read, and the problems."""

    key: str
    zip_key: str
    bytes: int = 0
    shards: int = 0
    records: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON document; its names are stable."""
        problems = [{"where": problem.where, "problem": problem.text} for problem in self.problems]
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
        url: returns a fresh presigned URL of `live.zip_key`.
        key: the key under which the marker is stored.
        progress: called after each chunk with (bytes read, total bytes).
        sleep: waits before a range is requested again.

    Raises DatasetReplaced (retired meanwhile), AccessDenied, StoreUnreachable, StoreError.
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
        _Pass(live, range_reader(source, sleep), head.size, report, progress).run()
    report.seconds = round(time.monotonic() - began, 3)
    return report


def marker_problems(live: Live, key: str) -> Iterator[Problem]:
    """Yield the problems of the marker itself. Pure."""
    if live.spec.key != key:
        yield Problem(MARKER, f"describes {live.spec.key}, but is stored under {key}")
    expected = layout.archive(live.spec.key, live.generation)
    if live.zip_key != expected:
        yield Problem(MARKER, f"names {live.zip_key}; generation {live.generation} is {expected}")
    try:
        check_members(live)
    except IntegrityError as error:
        yield Problem(MARKER, str(error))
        return
    end = 0
    for member in live.members:
        if not 0 < member.offset - end <= MAX_HEADER_BYTES:
            text = f"{member.name} begins at byte {member.offset}, after byte {end}"
            yield Problem(MARKER, text)
        end = member.offset + member.size
    names = {member.name for member in live.members}
    for name in sorted({INFO_FILE_NAME, FEATURES_FILE_NAME} - names):
        yield Problem(name, "is not in the ready marker")


def document_problems(live: Live, documents: Mapping[str, bytes]) -> Iterator[Problem]:
    """Yield the differences of dataset_info.json and features.json from the marker. Pure."""
    for name, expected in ((INFO_FILE_NAME, info_of(live)), (FEATURES_FILE_NAME, live.features)):
        if name not in documents:
            continue
        try:
            found = list(_differences(json.loads(documents[name]), expected, ""))
        except (ValueError, RecursionError) as error:
            found = [f"is not JSON: {str(error)[:200]}"]
        yield from (Problem(name, difference) for difference in found)


def info_of(live: Live) -> Any:
    """Return the dataset_info.json that the marker implies."""
    splits: dict[str, tuple[list[int], int]] = {}
    for shard in live.shards:
        counts, size = splits.get(shard.split, ([], 0))
        counts.append(shard.records)
        splits[shard.split] = (counts, size + shard.size)
    return json.loads(dataset_info_json(live.spec.dataset_name, live.spec.handler_version, splits))


def _differences(actual: Any, expected: Any, path: str) -> Iterator[str]:
    """Yield the differences between two JSON documents, each with its path."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        for name in sorted({*actual, *expected}):
            member_path = f"{path}.{name}".lstrip(".")
            yield from _differences(actual.get(name), expected.get(name), member_path)
    elif isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
            yield from _differences(left, right, f"{path}[{index}]")
    elif actual != expected:
        place = path or "the document"
        yield f"{place} is {_short(actual)}, but the ready marker says {_short(expected)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _head_problems(live: Live, etag: str, size: int) -> Iterator[Problem]:
    if etag != live.zip_etag:
        yield Problem(
            live.zip_key,
            f"is not the object that the ready marker describes (etag {etag} instead of "
            f"{live.zip_etag})",
        )
    if size != live.zip_size:
        yield Problem(live.zip_key, f"{size} bytes instead of {live.zip_size}")


class _Pass:
    """Read the zip once, member by member, and report its problems."""

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
        """Read to the end of the zip."""
        for member in self._live.members:
            self._add(member.name, local_problems(self._bytes_until(member.offset), member))
            self._add(member.name, self._data_problems(member))
            self._progress(self._stream.position, self._size)
        self._report.problems += document_problems(self._live, self._documents)
        self._add(self._live.zip_key, self._tail_problems(self._live.members))
        self._report.bytes = self._stream.position
        self._progress(self._stream.position, self._size)

    def _add(self, where: str, problems: Iterator[str]) -> None:
        self._report.problems += [Problem(where, text) for text in problems]

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
        start, max_bytes = self._stream.position, largest_directory(members)
        if self._size - start > max_bytes:
            yield (
                f"{self._size - start} bytes follow the last member; the central directory of "
                f"{len(members)} members has at most {max_bytes}"
            )
            return
        yield from directory_problems(self._bytes_until(self._size), start, members)


class _ZipStream:
    """The zip as one stream, read up to given offsets."""

    def __init__(self, read: Read, size: int) -> None:
        self.position = 0
        self._size = size
        self._chunks = read(0, size)
        self._unread = memoryview(b"")

    def until(self, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from the position up to `stop`, or to the end of the zip."""
        while self.position < min(stop, self._size):
            if not self._unread:
                self._unread = next(self._chunks)
            piece = self._unread[: stop - self.position]
            self._unread = self._unread[len(piece) :]
            self.position += len(piece)
            yield piece


def range_reader(
    source: Source, sleep: Callable[[float], object], stall_s: float = STALL_S
) -> Read:
    """Return a function that reads a range of the source, and resumes it when it breaks off."""
    reader = RangeReader(source, stall_s)

    def read(start: int, stop: int) -> Iterator[memoryview]:
        failures = 0
        while start < stop:
            before = start
            try:
                for chunk in reader.read(start, min(start + RANGE_BYTES, stop)):
                    start += len(chunk)
                    yield chunk
                failures = 0
            except Interrupted as error:
                failures = 1 if start - before >= ADVANCE_BYTES else failures + 1
                if failures > len(RETRY_PAUSES_S):
                    raise StoreUnreachable(
                        f"{source.name}: {failures} consecutive attempts failed without receiving "
                        f"data: {error}"
                    ) from error
                sleep(RETRY_PAUSES_S[failures - 1] * random.uniform(0.5, 1.0))
        reader.close()

    return read
