"""The notification stream on the real server, and on servers that do not stream."""

from __future__ import annotations

import contextlib
import http.server
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from dscache.config import Config
from dscache.devstack.localstore import LocalStore
from dscache.store import notifications
from dscache.store.notifications import Connected, Created, Listener, Lost, Signal, Unsupported
from dscache.store.s3 import Store

LIMIT_S = 20.0


class Heard:
    """Signals as they come, and a way to wait for one."""

    def __init__(self) -> None:
        self.signals: queue.Queue[Signal] = queue.Queue()

    def until(self, wanted: Callable[[Signal], bool]) -> Signal:
        deadline = time.monotonic() + LIMIT_S
        while True:
            signal = self.signals.get(timeout=max(deadline - time.monotonic(), 0.01))
            if wanted(signal):
                return signal

    def until_connected(self) -> None:
        self.until(lambda signal: isinstance(signal, Connected))


def test_an_event_carries_name_and_metadata(client_config: Config, store: Store) -> None:
    heard = Heard()
    with Listener(client_config, "datasets/", heard.signals.put):
        heard.until_connected()
        store.put("requests/other", b"1")
        store.put("datasets/ä b+c.progress", b"2", metadata={"progress": '{"done": 1}'})
        signal = heard.until(lambda signal: isinstance(signal, Created))
    assert signal == Created("datasets/ä b+c.progress", {"progress": '{"done": 1}'})


def test_stopping_is_quick_and_final(client_config: Config, store: Store) -> None:
    heard = Heard()
    listener = Listener(client_config, "datasets/", heard.signals.put).start()
    heard.until_connected()
    started = time.monotonic()
    listener.stop()
    assert time.monotonic() - started < 1.0
    assert not listener._thread.is_alive()
    before = heard.signals.qsize()
    another = Heard()
    with Listener(client_config, "datasets/", another.signals.put):
        another.until_connected()
        store.put("datasets/late", b"1")
        another.until(lambda signal: isinstance(signal, Created))
    assert heard.signals.qsize() == before


@pytest.mark.parametrize("error", [OSError(9, "closed"), RuntimeError(), ValueError()])
def test_stopping_a_stream_that_has_just_ended(client_config: Config, error: Exception) -> None:
    """urllib3 has three ways to say so, and none of them is the caller's trouble."""
    listener = Listener(client_config, "datasets/", lambda signal: None)
    ended = mock.Mock()
    ended.shutdown.side_effect = error
    listener._response = ended
    listener.stop()
    ended.shutdown.assert_called_once_with()


def test_stopping_before_the_headers_does_not_wait(client_config: Config) -> None:
    listener = Listener(client_config, "datasets/", lambda signal: None).start()
    started = time.monotonic()
    listener.stop()
    assert time.monotonic() - started < 0.5
    listener._thread.join(LIMIT_S)
    assert not listener._thread.is_alive()


def test_it_comes_back_after_a_restart_of_the_server(
    new_store: Callable[..., LocalStore],
) -> None:
    server = new_store()
    heard = Heard()
    config = server.client_config
    with Listener(config, "datasets/", heard.signals.put):
        heard.until_connected()
        server.kill()
        heard.until(lambda signal: isinstance(signal, Lost))
        server.start()
        heard.until_connected()
        Store(server.config).put("datasets/x", b"1")
        assert heard.until(lambda signal: isinstance(signal, Created)) == Created("datasets/x")


def test_it_opens_again_every_so_often(
    client_config: Config, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because of the mask bug a stream may have gone deaf: a new one hears again."""
    monkeypatch.setattr(notifications, "REOPEN_S", 2.0)
    heard = Heard()
    with Listener(client_config, "datasets/", heard.signals.put):
        heard.until_connected()
        assert heard.signals.get(timeout=LIMIT_S) == Connected()
        store.put("datasets/x", b"1")
        heard.until(lambda signal: isinstance(signal, Created))


def test_no_permission_means_looking_instead(client_config: Config) -> None:
    heard = Heard()
    with Listener(client_config._replace(secret_key="x" * 20), "datasets/", heard.signals.put):
        signal = heard.until(lambda signal: isinstance(signal, Unsupported))
    assert isinstance(signal, Unsupported)
    assert "SignatureDoesNotMatch" in signal.reason


@contextmanager
def server_that(answers: Callable[[http.server.BaseHTTPRequestHandler], object]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers(self)

        def log_message(self, *words: object) -> None:
            """Silence."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_without_a_notification_stream(client_config: Config) -> None:
    """What SeaweedFS answers."""
    heard = Heard()
    with (
        server_that(lambda request: request.send_error(501)) as endpoint,
        Listener(client_config._replace(endpoint=endpoint), "datasets/", heard.signals.put),
    ):
        signal = heard.until(lambda signal: isinstance(signal, Unsupported))
    assert "501" in str(signal)


def test_a_server_that_never_sends_headers(
    client_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an unmended MinIO build does."""
    monkeypatch.setattr(notifications, "READ_TIMEOUT_S", 0.2)
    heard, released = Heard(), threading.Event()
    with (
        server_that(lambda request: released.wait(LIMIT_S)) as endpoint,
        Listener(client_config._replace(endpoint=endpoint), "datasets/", heard.signals.put),
    ):
        signal = heard.until(lambda signal: isinstance(signal, Unsupported))
        released.set()
    assert "timed out" in str(signal)


def test_lines_may_span_chunks() -> None:
    chunks = [b'{"a', b'":1}\n{"b":2}\n\n{"c"', b":3}\n"]
    assert list(notifications._split_lines(chunks)) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


@pytest.mark.parametrize("line", [b'{"Records":null}', b"nonsense", b"[]", b'{"Records":[{}]}'])
def test_lines_that_are_no_events(line: bytes) -> None:
    assert list(notifications.parse_line(line)) == []


def test_a_refusal_after_it_streamed_is_not_final(client_config: Config) -> None:
    """A store that starts again answers 403 until it has read its users."""
    answers = iter([200, 403, 403, 200])

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        status = next(answers)
        request.send_response(status)
        request.send_header("content-length", "17")
        request.end_headers()
        request.wfile.write(b'{"Records":null}\n')

    heard = Heard()
    with (
        server_that(answer) as endpoint,
        Listener(client_config._replace(endpoint=endpoint), "datasets/", heard.signals.put),
    ):
        heard.until_connected()
        heard.until(lambda signal: isinstance(signal, Lost) and "403" in signal.reason)
        heard.until_connected()


def test_a_stream_that_brings_nothing_is_none_until_it_brings_a_line(
    client_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that buffers answers (nginx, unless told otherwise) passes only the headers on."""
    monkeypatch.setattr(notifications, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(notifications, "SILENT_S", 0.3)
    unbuffered = threading.Event()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        with contextlib.suppress(OSError):  # nobody listens any more
            while unbuffered.wait(LIMIT_S):
                request.wfile.write(b'11\r\n{"Records":null}\n\r\n')
                time.sleep(0.1)

    heard = Heard()
    with (
        server_that(answer) as endpoint,
        Listener(client_config._replace(endpoint=endpoint), "datasets/", heard.signals.put),
    ):
        heard.until_connected()
        signal = heard.signals.get(timeout=LIMIT_S)
        assert isinstance(signal, Unsupported) and "buffer" in signal.reason
        with pytest.raises(queue.Empty):  # headers alone are not believed any more
            heard.signals.get(timeout=2.0)
        unbuffered.set()
        assert heard.signals.get(timeout=LIMIT_S) == Connected()
