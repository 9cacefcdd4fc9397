"""A TCP proxy in front of the store that notes when requests came through."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import threading
import time
from collections import Counter
from typing import NamedTuple
from urllib.parse import urlsplit

_HEAD = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")
_CHUNK_BYTES = 64 << 10


class Asked(NamedTuple):
    """A request: when it came (time.monotonic), what it was, and whether it asks for events."""

    at: float
    method: str
    listens: bool


class CountingProxy:
    """Listens on a free loopback port; use as a context manager.

    `asked` are the requests that reached the store, in order. A connection that the store refuses
    is closed and counts nothing. Clients send one request at a time on a connection. With
    `loses_events`, streams of notifications carry their pings only.
    """

    def __init__(self, upstream: str, *, loses_events: bool = False) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._loses_events = loses_events
        self.asked: list[Asked] = []
        self.url = ""

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def busiest_second(self, since: float = 0.0, until: float = math.inf) -> int:
        """The most requests in any one second between the two times."""
        times = [asked.at for asked in self.asked if since <= asked.at < until]
        most, first = 0, 0
        for last, at in enumerate(times):
            while times[first] <= at - 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most

    def per_second(self, since: float) -> list[int]:
        """Requests in each second after `since`."""
        counts = Counter(int(asked.at - since) for asked in self.asked if asked.at >= since)
        return [counts[second] for second in range(max(counts, default=-1) + 1)]

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            server, forth = await asyncio.open_connection(*self._upstream)
        except OSError:
            back.transport.abort()
            return
        connection = _Connection(self.asked, self._loses_events)
        requests = asyncio.ensure_future(connection.requests(client, forth))
        answers = asyncio.ensure_future(connection.answers(server, back))
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the test is over
                await asyncio.wait((requests, answers), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (requests, answers):
                task.cancel()
            for writer in (forth, back):
                writer.transport.abort()


class _Connection:
    """One client's connection to the store; one that listens is used for nothing else."""

    def __init__(self, asked: list[Asked], loses_events: bool) -> None:
        self._asked, self._loses_events = asked, loses_events
        self._listens = False

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if head := _HEAD.match(data):
                    self._listens = b"events=" in head[2]
                    self._asked.append(Asked(time.monotonic(), head[1].decode(), self._listens))
                writer.write(data)
                await writer.drain()

    async def answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(await reader.readuntil(b"\r\n\r\n"))
            while data := await self._next(reader):
                writer.write(data)
                await writer.drain()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        """The next piece of an answer; of a stream whose events are lost, the next ping."""
        if not (self._listens and self._loses_events):
            return await reader.read(_CHUNK_BYTES)
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size, 16) + 2)
            if b"eventName" not in chunk:
                return size + chunk
