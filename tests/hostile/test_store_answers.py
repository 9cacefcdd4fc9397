"""Whatever answers in the place of a store: an error that says so, in time, and no harm beyond."""

from __future__ import annotations

import json
import queue
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dscache import Dataset, Spec
from dscache.config import Config
from dscache.download import ranges
from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.errors import (
    DatasetReplaced,
    DscacheError,
    IntegrityError,
    StoreError,
    StoreUnreachable,
    UnreadableObject,
)
from dscache.protocol import layout, manifests, markers
from dscache.protocol.manifests import Live, Request
from dscache.store import pacing
from dscache.store.notifications import Created, Listener, Signal, Unsupported
from dscache.store.s3 import Store
from dscache.store.signed_http import deadline_in
from dscache.verify import verify
from support.datasets import MEMBER
from support.hostilestore import (
    Answer,
    Asked,
    HostileStore,
    an_empty_store,
    listing,
    response,
)
from support.running import Builder, dscache, wait_until, write_spec

NAME = "datasets/x.ready"
SPEC = Spec.of("photos", "1.0.0", {"n": 1})
LIVE = Live(
    spec=SPEC, generation=0, zip_key=layout.archive(SPEC.key, 0), zip_etag="e", zip_size=1,
    seal="x", members=[MEMBER],
)  # fmt: skip


@pytest.fixture
def hostile() -> Iterator[HostileStore]:
    with HostileStore() as server:
        yield server


@pytest.fixture
def victim(hostile: HostileStore) -> Store:
    return Store(hostile.config)


MANY_HEADERS: dict[str, str | None] = {f"x_amz_meta_a{n}": "1" for n in range(120)}
DRIP_BODY = Answer(response(length=1 << 20), b" ", 0.1)
DRIPS = {
    "body": DRIP_BODY,
    "header": Answer(b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.1),
    "continue": Answer(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1),
    "a flood of continue": Answer(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "chunks": Answer(
        response(content_length=None, transfer_encoding="chunked"), b"1\r\n \r\n", 0.1
    ),
    "trailers": Answer(
        response(b"0\r\n", content_length=None, transfer_encoding="chunked"), b"a: b\r\n", 0.1
    ),
    "nothing": Answer(b"", b"", 0.1),
    "no end": Answer(response(content_length=None), b" ", 0.1),
    "error": Answer(response(status=403, length=1 << 20), b" ", 0.1),
}


# -- answers about one object


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(b"x", more=MANY_HEADERS), "more than 100 headers"),
        (response(b"x", x_amz_meta_a="x" * 70_000), "header line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\nETag: e\r\nContent-Length: 0\r\n\r\n", "header"),
        (response(b"x", etag=None), "no ETag"),
        (response(b"x", etag='W/"e"'), "ETag .*W/"),
        (response(b"x", etag='""'), "ETag"),
        (response(content_length="1, 2"), "[Cc]ontent-[Ll]ength"),
    ],
    ids=["many", "long", "no colon", "no etag", "weak etag", "empty etag", "two lengths"],
)
def test_an_answer_that_cannot_be_understood_is_about_its_object_only(
    answer: bytes, message: str, hostile: HostileStore, victim: Store
) -> None:
    hostile.rule = lambda asked: answer
    with pytest.raises(UnreadableObject, match=message) as caught:
        victim.get(NAME)
    assert str(caught.value).startswith(NAME)
    assert "is the store running" not in str(caught.value)
    assert len(hostile.asked) == 1, "it would say the same again"
    assert markers.read_known(victim, NAME, Request) is None


@pytest.mark.parametrize("length", [None, "five", "-1", "1" * 30])
def test_a_head_without_a_length(length: str | None, hostile: HostileStore, victim: Store) -> None:
    hostile.rule = lambda asked: response(content_length=length)
    with pytest.raises(UnreadableObject, match=f"{NAME}: .*Content-Length"):
        victim.head(NAME)


def test_a_write_without_an_etag(hostile: HostileStore, victim: Store) -> None:
    hostile.rule = lambda asked: response(etag=None)
    with pytest.raises(StoreError, match=f"{NAME}: .*no ETag"):
        victim.put(NAME, b"x")


def test_what_does_not_answer_in_http(hostile: HostileStore, victim: Store) -> None:
    hostile.rule = lambda asked: b"SSH-2.0-OpenSSH_9.2\r\n\r\n"
    with pytest.raises(StoreError, match="not HTTP"):
        victim.get(NAME)
    hostile.rule = lambda asked: b"\x00\xff\xfe" * 20_000 + b"\r\n\r\n"
    with pytest.raises(StoreError, match="not HTTP") as caught:
        victim.get(NAME)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "date", ["yesterday", "Thu, 01 Jan 99999 00:00:00 GMT", "", None, "Thu, 99 Foo", "\xff"]
)
def test_a_date_that_is_none_leaves_the_clock_as_it_is(
    date: str | None, hostile: HostileStore, victim: Store
) -> None:
    hostile.rule = lambda asked: response(b"x", date=date)
    found = victim.get(NAME)
    assert found is not None and found.body == b"x"
    assert abs(victim.now() - time.time()) < 5


def test_a_message_of_others_is_cut(hostile: HostileStore, victim: Store) -> None:
    body = b"<Error><Code>X</Code><Message>" + b"M" * (15 << 20) + b"</Message></Error>"
    hostile.rule = lambda asked: response(body, 400)
    with pytest.raises(StoreError, match="MMM") as caught:
        victim.get(NAME)
    assert len(str(caught.value)) < 1000
    with pytest.raises(StoreError, match="MMM") as caught:
        victim.create_upload("datasets/x.zip", {})
    assert len(str(caught.value)) < 1000


# -- in time


@pytest.mark.parametrize("drip", DRIPS)
def test_a_deadline_holds_however_an_answer_drips(
    drip: str, hostile: HostileStore, victim: Store
) -> None:
    hostile.rule = lambda asked: DRIPS[drip]
    started = time.monotonic()
    with deadline_in(1.5), pytest.raises(StoreError):
        victim.get(NAME)
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("drip", ["body", "header", "a flood of continue"])
def test_without_a_deadline_a_drip_ends_too(
    drip: str, hostile: HostileStore, victim: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "REQUEST_S", 0.5)
    monkeypatch.setattr(victim._signed, "_sleep", lambda seconds: None)
    hostile.rule = lambda asked: DRIPS[drip]
    started = time.monotonic()
    with pytest.raises(StoreUnreachable):
        victim.get(NAME)
    assert time.monotonic() - started < 8.0


def test_a_slow_line_is_no_drip(
    hostile: HostileStore, victim: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "REQUEST_S", 0.5)
    piece = b"x" * 40_000
    hostile.rule = lambda asked: Answer(response(length=10 * len(piece)), piece, 0.2, 10)
    found = victim.get(NAME)
    assert found is not None and found.body == piece * 10


def test_a_connection_is_as_good_as_new_for_the_next_request(
    hostile: HostileStore, victim: Store
) -> None:
    """What little time the last request had left is not the next one's."""
    hostile.rule = lambda asked: Answer(response(length=3), b"x", 0.3, 3)
    with deadline_in(1.5):
        assert victim.get(NAME)
    hostile.rule = lambda asked: Answer(response(length=8), b"x", 0.3, 8)
    assert victim.get(NAME)
    assert victim.put(NAME, b"x" * (8 << 20)) == "e"


# -- listings

OBJECT = (
    b"<ListBucketResult><Contents><Key>k</Key><Size>%s</Size><LastModified>%s</LastModified>"
    b"</Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no element"),
        (b"<html>login</html>", "<html>"),
        (b"<html><body>", "no element"),
        (b"<Error><Code>InternalError</Code></Error>", "<Error>"),
        (OBJECT % (b"1", b"never"), "never"),
        (OBJECT % (b"1", b""), "isoformat"),
        (OBJECT % (b"", b"2026-01-01T00:00:00Z"), "invalid literal"),
        (OBJECT % (b"x", b"2026-01-01T00:00:00Z"), "invalid literal"),
    ],
)  # fmt: skip
def test_what_is_no_listing(
    body: bytes, message: str, hostile: HostileStore, victim: Store
) -> None:
    hostile.rule = lambda asked: response(body, etag=None)
    with pytest.raises(StoreError, match=f"listing of 'requests/': .*{message}.*object store"):
        list(victim.entries("requests/"))


def page(number: int, token: str, objects: int) -> bytes:
    entries = "".join(
        f"<Contents><Key>k{number:06d}-{n}</Key><Size>1</Size><ETag>e</ETag>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
        for n in range(objects)
    )
    token = f"<NextContinuationToken>{token}</NextContinuationToken>"
    return listing(f"<IsTruncated>true</IsTruncated>{token}{entries}".encode())


@pytest.mark.parametrize(("token", "objects"), [("same", 0), ("same", 1), ("{}", 0)])
def test_a_listing_that_does_not_get_on(
    token: str, objects: int, hostile: HostileStore, victim: Store
) -> None:
    hostile.rule = lambda asked: page(n := len(hostile.asked), token.format(n), objects)
    with pytest.raises(StoreError, match=r"listing of 'requests/': .*does not get on"):
        list(victim.entries("requests/"))
    assert len(hostile.asked) <= 101


def test_a_listing_without_end_ends_at_the_deadline(hostile: HostileStore, victim: Store) -> None:
    hostile.rule = lambda asked: page(n := len(hostile.asked), str(n), 2)
    started = time.monotonic()
    with deadline_in(1.0), pytest.raises(StoreUnreachable, match="listing of 'requests/'"):
        list(victim.entries("requests/"))
    assert time.monotonic() - started < 3.0


# -- multipart uploads


UPLOADS: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create_upload("datasets/x.zip", {}),
    "part": lambda store: store.upload_part("datasets/x.zip", "u", 1, [b"x"]),
    "list": lambda store: store.list_parts("datasets/x.zip", "u"),
    "complete": lambda store: store.complete_upload("datasets/x.zip", "u", [(1, "e")]),
}


@pytest.mark.parametrize("call", UPLOADS)
@pytest.mark.parametrize(
    "body",
    [
        b"<html>login</html>",
        b"<html>",
        b"\x00",
        b"<R><Part><PartNumber>one</PartNumber></Part></R>",
        b"<R><Part><PartNumber>1</PartNumber></Part></R>",
        b"<R><IsTruncated>true</IsTruncated></R>",
        b"<R><IsTruncated>true</IsTruncated><NextPartNumberMarker>0</NextPartNumberMarker></R>",
    ],
)
def test_an_upload_that_is_not_understood(
    call: str, body: bytes, hostile: HostileStore, victim: Store
) -> None:
    hostile.rule = lambda asked: response(body, etag=None)
    if call == "list" and body == b"<html>login</html>":
        assert UPLOADS[call](victim) == []  # no part: then all are sent again
        return
    with pytest.raises(StoreError, match=r"datasets/x\.zip"):
        UPLOADS[call](victim)


def test_an_upload_whose_answer_has_too_many_headers(hostile: HostileStore, victim: Store) -> None:
    hostile.rule = lambda asked: response(more=MANY_HEADERS)
    with pytest.raises(StoreError, match=r"datasets/x.zip.*more than 100 headers") as caught:
        UPLOADS["part"](victim)
    assert not isinstance(caught.value, StoreUnreachable)


# -- downloads


@pytest.mark.parametrize("drip", ["header", "continue", "a flood of continue", "error", "body"])
def test_a_range_that_drips_is_given_up(drip: str, hostile: HostileStore) -> None:
    hostile.rule = lambda asked: DRIPS[drip]
    url = f"{hostile.config.endpoint}/bucket/x.zip?signed"
    source = ranges.Source(lambda: url, name="x.zip", etag="e", size=10)
    if drip == "body":
        start = response(status=206, length=10, content_range="bytes 0-9/10")
        hostile.rule = lambda asked: Answer(start, b" ", 0.2)
    started = time.monotonic()
    with pytest.raises(ranges.Interrupted):
        list(ranges.RangeReader(source, stall_s=0.6).read(0, 10))
    assert time.monotonic() - started < 3.0


def test_a_zip_that_drips_is_not_verified_for_ever(hostile: HostileStore) -> None:
    """A few bytes in each attempt are no progress."""

    def drips(asked: Asked) -> Answer:
        first, last = asked.headers["range"].removeprefix("bytes=").split("-")
        length = int(last) - int(first) + 1
        content_range = f"bytes {first}-{last}/4000"
        return Answer(
            response(status=206, length=length, content_range=content_range), b" ", 0.05, length
        )

    hostile.rule = drips
    url = f"{hostile.config.endpoint}/bucket/x.zip?signed"
    source = ranges.Source(lambda: url, name="x.zip", etag="e", size=4000)
    read = verify.range_reader(source, sleep=lambda seconds: None, stall_s=0.3)
    with pytest.raises(StoreUnreachable, match="consecutive attempts"):
        list(read(0, 4000))


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"etag": None}, "no ETag"),
        ({"etag": 'W/"e"'}, "the ETag 'W/"),
        (MANY_HEADERS, "100 headers"),
    ],
)
def test_a_zip_whose_answer_is_not_understood(
    headers: dict[str, str | None], message: str, hostile: HostileStore, tmp_path: Path
) -> None:
    hostile.rule = lambda asked: response(b"x", 206, content_range="bytes 0-0/1", more=headers)
    url = f"{hostile.config.endpoint}/bucket/x.zip?signed"
    options = TransferOptions(sleep=lambda seconds: None)
    with pytest.raises(DscacheError, match=message) as caught:
        download(LIVE, tmp_path / "to", lambda: url, options=options)
    assert not isinstance(caught.value, (StoreUnreachable, DatasetReplaced))


# -- notifications


def event(name: object, **members: object) -> bytes:
    return json.dumps({"Records": [{"s3": {"object": {"key": name, **members}}}]}).encode()


NONSENSE = [
    b"null", b"5", b"[]", b"{}", b'"x"', b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"Records": 5}', b'{"Records": [1]}', b'{"Records": {"s3": 1}}', b'{"Records": [null]}',
    b'{"Records": [{"s3": 1}]}', b'{"Records": [{"s3": {"object": 1}}]}', event(5), event(None),
    event("x", userMetadata=5), event("x", userMetadata={"X-Amz-Meta-Progress": 5}),
    event("x", userMetadata=[1]), b'{"Records": [{"s3": {"object": {"key": "\\ud800"}}}]}',
    b"1" * 5000, b'{"Records": ' + b"9" * 5000 + b"}",
]  # fmt: skip


def stream(lines: bytes) -> Answer:
    chunk = f"{len(lines):x}\r\n".encode() + lines + b"\r\n"
    return Answer(response(content_length=None, etag=None, transfer_encoding="chunked"), chunk, 0.5)


def heard_until(signals: queue.SimpleQueue[Signal], wanted: Signal) -> list[Signal]:
    heard: list[Signal] = []
    while not heard or heard[-1] != wanted:
        heard.append(signals.get(timeout=20.0))
    return heard


def test_no_line_ends_the_listener(hostile: HostileStore) -> None:
    lines = b"".join(line + b"\n" + event(f"real-{n}") + b"\n" for n, line in enumerate(NONSENSE))
    hostile.rule = lambda asked: stream(lines)
    signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    with Listener(hostile.config, "datasets/", signals.put):
        for n in range(len(NONSENSE)):
            heard_until(signals, Created(f"real-{n}"))
    assert len(hostile.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        response(b"x", more=MANY_HEADERS),
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"nonsense\r\n\r\n",
        Answer(response(content_length=None), b"x" * 65_536, times=100),
        response(b"zz\r\n", content_length=None, transfer_encoding="chunked"),
        response(content_length="1, 2"),
        response(b"M" * 100_000, 503),
    ],
    ids=["many", "no colon", "no http", "no newline", "chunk", "two lengths", "error"],
)
def test_no_answer_ends_the_listener(answer: Answer | bytes, hostile: HostileStore) -> None:
    hostile.rule = lambda asked: answer if len(hostile.asked) < 2 else stream(event("real") + b"\n")
    signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    with Listener(hostile.config, "datasets/", signals.put, return_s=(0.0, 0.1)):
        heard = heard_until(signals, Created("real"))
    assert not any(isinstance(signal, Unsupported) for signal in heard)


def test_an_error_that_nobody_thought_of_does_not_end_the_listener(
    hostile: HostileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile.rule = lambda asked: stream(event("real") + b"\n")
    signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
    listener = Listener(hostile.config, "datasets/", signals.put, return_s=(0.0, 0.1))
    stream_of, failures = listener._stream, [RuntimeError("a bug")]

    def fails_once(pool: object) -> Iterator[Signal]:
        if failures:
            raise failures.pop()
        return stream_of(pool)  # type: ignore[arg-type]

    monkeypatch.setattr(listener, "_stream", fails_once)
    with listener:
        heard_until(signals, Created("real"))


# -- whole programs


def at(asks: Callable[[Asked], bool], answer: Answer | bytes) -> Callable[[Asked], Answer | bytes]:
    return lambda asked: answer if asks(asked) else an_empty_store(asked)


MODES = {
    "ready drip": at(lambda asked: asked.path.endswith(".ready"), DRIP_BODY),
    "ready date": at(lambda asked: asked.path.endswith(".ready"), response(b"{}", date="x")),
    "ready etag": at(lambda asked: asked.path.endswith(".ready"), response(b"{}", etag=None)),
    "list html": at(lambda asked: asked.lists, response(b"<html>login</html>", etag=None)),
    "list endless": at(lambda asked: asked.lists, page(1, "same", 0)),
    "head length": at(lambda asked: asked.method == "HEAD", response(content_length=None)),
    "put etag": at(lambda asked: asked.method == "PUT", response(etag=None)),
    "events": at(
        lambda asked: asked.listens,
        stream(b'{"Records": [1]}\n'),
    ),
    "message": lambda asked: response(
        b"<Error><Message>" + b"M" * (15 << 20) + b"</Message></Error>", 400
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_get_ends_in_time_with_one_error(mode: str, hostile: HostileStore, tmp_path: Path) -> None:
    hostile.rule = MODES[mode]
    spec = write_spec(tmp_path / "cfg.json", "photos")
    config = hostile.config._replace(home=tmp_path / "home")
    started = time.monotonic()
    ran = dscache(config, "get", str(spec), "--timeout", "3")
    assert time.monotonic() - started < 15.0
    assert ran.code in (4, 7, 8), ran.err
    assert "Traceback" not in ran.err and len(ran.err) < 3000


# -- one object among others, on a real store with a real builder


def put_with_many_headers(store: Store, spec: Spec) -> str:
    """What anyone may do who may request: 2 KB of metadata with short names."""
    request = Request(spec=spec, nonce="0", client="evil", requested_at=0.0)
    name = layout.request(spec.key, "0")
    store.put(name, manifests.encode(request), metadata={f"a{n}": "1" for n in range(96)})
    return name


@pytest.mark.store
@pytest.mark.system
def test_a_request_with_too_many_headers_stops_nobody_else(
    client_store: Store,
    client_config: Config,
    new_builder: Callable[..., Builder],
    tmp_path: Path,
) -> None:
    victim = Spec.of("counting", "1.0.0", {"limit": 3})
    name = put_with_many_headers(client_store, victim)
    with pytest.raises(IntegrityError, match=re.escape(name)):
        client_store.get(name)
    cfg = str(write_spec(tmp_path / "cfg.json", "counting"))
    same = str(write_spec(tmp_path / "same.json", "counting", limit=3))
    builder = new_builder().start()
    ran = dscache(client_config, "get", cfg, "--timeout", "60")
    assert ran.code == 0, ran.err + builder.text()
    assert len(list(Dataset(ran.out.strip()))) == 6
    for command in (["ls"], ["status", cfg], ["status", same], ["cancel", same]):
        ran = dscache(client_config, *command)
        assert ran.code in (0, 5), ran.err
    wait_until(lambda: client_store.head(layout.failed(victim.key, "0")), "its failure")
    failure = markers.read_failure(client_store, victim.key, "0")
    assert failure and failure.kind == "request" and "100 headers" in failure.message
    ran = dscache(client_config, "get", same, "--retry", "--timeout", "60")
    assert ran.code == 0, ran.err + builder.text()
