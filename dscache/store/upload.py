"""Send bytes and runs of files to a presigned URL without copying them through Python.

http.client with `sendfile` took 0.24 s of CPU per GiB where boto3's upload_file took 2 to 2.9 s
(measured against two servers on loopback).
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import StoreUnreachable
from .response import Response


@dataclass(frozen=True)
class FilePiece:
    """`size` bytes of the file at `path`, from its beginning."""

    path: Path
    size: int


BodyPiece = bytes | FilePiece


def body_size(segments: Sequence[BodyPiece]) -> int:
    """Bytes in all."""
    return sum(len(s) if isinstance(s, bytes) else s.size for s in segments)


def put(url: str, segments: Sequence[BodyPiece], *, timeout_s: float = 60.0) -> Response:
    """PUT the segments as one body. Raises StoreUnreachable when the connection breaks."""
    with _connection(url, timeout_s) as (connection, target):
        connection.putrequest("PUT", target)
        connection.putheader("Content-Length", str(body_size(segments)))
        connection.endheaders()
        for segment in segments:
            _send(connection, segment)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, headers, response.read(1 << 16))


def _send(connection: http.client.HTTPConnection, segment: BodyPiece) -> None:
    if isinstance(segment, bytes):
        connection.send(segment)
        return
    if not segment.size:  # a shard whose samples were all left out; sendfile refuses 0 bytes
        return
    with segment.path.open("rb", buffering=0) as file:
        # ssl sockets cannot sendfile; socket.sendfile falls back to send() for them by itself
        sent = connection.sock.sendfile(file, 0, segment.size)
    if sent != segment.size:
        raise StoreUnreachable(f"{segment.path}: {sent} of {segment.size} bytes could be sent")


@contextmanager
def _connection(url: str, timeout_s: float) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=timeout_s)
    try:
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection, f"{parts.path}?{parts.query}" if parts.query else parts.path
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnreachable(f"{parts.scheme}://{parts.netloc}: {error!r}") from error
    finally:
        connection.close()
