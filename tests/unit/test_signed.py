"""When a request is sent again, and what is said when nobody answers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from dscache.config import Config
from dscache.errors import AccessDenied, StoreUnreachable
from dscache.signed import Signed

CONFIG = Config(endpoint="http://127.0.0.1:1", access_key="a", secret_key="b")


@contextmanager
def server_that_answers(*statuses: int) -> Iterator[Config]:
    """Answers with these, one after the other; 0 closes the connection without an answer."""
    left = list(statuses)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = left.pop(0)
            if status:
                self.send_response(status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        def log_message(self, *words: object) -> None:
            """Silence."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield replace(CONFIG, endpoint=f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()
    assert not left


@pytest.mark.parametrize(
    ("statuses", "status", "pauses"),
    [
        ((200,), 200, []),
        ((404,), 404, []),
        ((503, 200), 200, [1.0]),
        ((0, 503, 200), 200, [1.0, 2.0]),
        ((503, 503, 503), 503, [1.0, 2.0]),
    ],
)
def test_what_is_sent_again(statuses: tuple[int, ...], status: int, pauses: list[float]) -> None:
    slept: list[float] = []
    with server_that_answers(*statuses) as config:
        signed = Signed(config, sleep=slept.append, uniform=lambda low, high: high)
        answer = signed.send("GET", "datasets/x")
    assert (answer.status, answer.body, slept) == (status, b"ok", pauses)


def test_nobody_answers() -> None:
    signed = Signed(CONFIG, sleep=lambda _: None)
    with pytest.raises(StoreUnreachable, match=r"Connection refused.*is the store running"):
        signed.send("GET", "datasets/x")


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    with pytest.raises(AccessDenied, match="no credentials for http"):
        Signed(replace(CONFIG, access_key="")).send("GET", "datasets/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-this-machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = Signed(replace(CONFIG, access_key="")).presign("GET", "datasets/x", 60)
    assert "X-Amz-Credential=of-this-machine" in url
