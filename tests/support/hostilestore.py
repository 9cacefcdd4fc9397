"""A server that answers as a store never should: byte by byte, without end, or nonsense."""

from __future__ import annotations

import email.utils
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Self
from urllib.parse import unquote

from dscache.config import Config


@dataclass(frozen=True)
class Answer:
    """Bytes to send; then `piece` every `every_s` seconds, up to `times`, while anyone reads."""

    start: bytes
    piece: bytes = b""
    every_s: float = 0.0
    times: int = 1 << 60


@dataclass(frozen=True)
class Asked:
    """One request. `path` is without the bucket, `query` as it came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def lists(self) -> bool:
        """Whether it asks for a listing."""
        return "list-type=2" in self.query

    @property
    def listens(self) -> bool:
        """Whether it asks for notifications."""
        return "events=" in self.query


Rule = Callable[[Asked], Answer | bytes]


def response(
    body: bytes = b"",
    status: int = 200,
    length: int | None = None,
    more: Mapping[str, str | None] | None = None,
    **headers: str | None,
) -> bytes:
    """An HTTP response; a header that is None is left out, `_` in a name is a hyphen.

    `more` are further headers, and `length` is a Content-Length that is not that of the body.
    """
    names: dict[str, str | None] = {
        "content_length": str(len(body) if length is None else length),
        "date": email.utils.formatdate(usegmt=True),
        "etag": '"e"',
        **headers,
        **(more or {}),
    }
    lines = [f"{k.replace('_', '-')}: {v}\r\n" for k, v in names.items() if v is not None]
    return f"HTTP/1.1 {status} X\r\n{''.join(lines)}\r\n".encode("latin-1") + body


MISSING = response(b"<Error><Code>NoSuchKey</Code></Error>", 404, etag=None)
NO_NOTIFICATIONS = response(b"<Error><Code>NotImplemented</Code></Error>", 501, etag=None)


def listing(inner: bytes = b"") -> bytes:
    """A page of a listing."""
    return response(b"<ListBucketResult>" + inner + b"</ListBucketResult>", etag=None)


def an_empty_store(asked: Asked) -> Answer | bytes:
    """What a good store would say that holds nothing."""
    if asked.listens:
        return NO_NOTIFICATIONS
    if asked.lists:
        return listing()
    return response() if asked.method == "PUT" else MISSING


class HostileStore:
    """Listens on a free loopback port; use as a context manager.

    Attributes:
        rule: what to answer.
        asked: the requests that came.
    """

    def __init__(self, rule: Rule = an_empty_store) -> None:
        self.rule = rule
        self.asked: list[Asked] = []
        self._closed = threading.Event()
        hostile = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                hostile._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        port = self._server.server_address[1]
        self.config = Config(
            endpoint=f"http://127.0.0.1:{port}", bucket="bucket", access_key="a", secret_key="s"
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as lines:
                while asked := _read(lines):
                    self.asked.append(asked)
                    self._send(connection, self.rule(asked), asked.method)
        except OSError:
            pass

    def _send(self, connection: socket.socket, answer: Answer | bytes, method: str) -> None:
        if isinstance(answer, bytes):
            answer = Answer(answer)
        head, gap, body = answer.start.partition(b"\r\n\r\n")
        connection.sendall(head + gap if method == "HEAD" else head + gap + body)
        times = answer.times if answer.piece else 0
        while times and not self._closed.is_set():
            connection.sendall(answer.piece)
            time.sleep(answer.every_s)
            times -= 1
        if b"content-length" not in head:
            raise OSError("this is how the response ends")


def _read(lines: BufferedReader) -> Asked | None:
    first = lines.readline()
    if not first:
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = {}
    while line := lines.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    lines.read(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    return Asked(method, unquote(path.removeprefix("/bucket").lstrip("/")), query, headers)
