"""When a request is sent again, and what is said when nobody answers."""

from __future__ import annotations

import http.server
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.errors import AccessDenied, ConfigError, StoreUnreachable
from dscache.store.signed_http import SignedHttp, deadline_in

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
            yield CONFIG._replace(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
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
        signed = SignedHttp(config, sleep=slept.append, uniform=lambda low, high: high)
        answer = signed.send("GET", "datasets/x")
    assert (answer.status, answer.body, slept) == (status, b"ok", pauses)


def test_a_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dscache")
    with server_that_answers(0, 503, 200) as config:
        signed = SignedHttp(config, sleep=lambda _: None, uniform=lambda low, high: high)
        signed.send("GET", "datasets/x", query={"secret": "value"})
    lines = [re.sub(r"\b\d+ ms", "N ms", message) for message in caplog.messages]
    assert [line for line in lines if line.startswith("GET")] == [
        "GET datasets/x: Remote end closed connection without response after N ms",
        "GET datasets/x: retrying in 1.0 s",
        "GET datasets/x: 503 in N ms",
        "GET datasets/x: retrying in 2.0 s",
        "GET datasets/x: 200 in N ms",
    ]


def test_nobody_answers() -> None:
    signed = SignedHttp(CONFIG, sleep=lambda _: None)
    with pytest.raises(StoreUnreachable, match=r"Connection refused.*is the store running"):
        signed.send("GET", "datasets/x")


@pytest.fixture
def hung() -> Iterator[Config]:
    """A store that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield CONFIG._replace(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_a_store_that_hangs_is_given_up_when_the_time_is_up(hung: Config) -> None:
    started = time.monotonic()
    with deadline_in(1.5), pytest.raises(StoreUnreachable, match="timed out"):
        SignedHttp(hung).send("GET", "datasets/x")
    assert 1.0 < time.monotonic() - started < 4.0


def test_a_deadline_within_another_one_gives_no_more_time(hung: Config) -> None:
    for inner in (60.0, None):
        started = time.monotonic()
        with deadline_in(1.0), deadline_in(inner), pytest.raises(StoreUnreachable):
            SignedHttp(hung).send("GET", "datasets/x")
        assert time.monotonic() - started < 4.0


def test_when_the_time_is_up_a_request_is_made_once() -> None:
    with server_that_answers(200) as config, deadline_in(0.0):
        assert SignedHttp(config).send("GET", "datasets/x").status == 200
    with server_that_answers(0) as config, deadline_in(0.0), pytest.raises(StoreUnreachable):
        SignedHttp(config).send("GET", "datasets/x")


def run(code: str, config: Config, tmp_path: object) -> subprocess.CompletedProcess[str]:
    names = ("endpoint", "access_key", "secret_key")
    environ = {f"DSCACHE_{name.upper()}": getattr(config, name) for name in names}
    environ |= {"DSCACHE_CONFIG": f"{tmp_path}/none", "DSCACHE_HOME": f"{tmp_path}/home"}
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, timeout=20, check=False,
        capture_output=True, text=True,
    )  # fmt: skip


def test_get_keeps_its_timeout_on_a_store_that_hangs(hung: Config, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(
        '{"dataset_name": "photos", "handler_version": "1", "dataset_config": {}}'
    )
    words = ["dscache", "get", "--timeout", "2", f"{tmp_path}/c.json"]
    code = f"import sys; sys.argv = {words}; from dscache.cli import main; main()"
    done = run(code, hung, tmp_path)
    assert done.returncode == 7
    assert "no answer from" in done.stderr


def test_a_process_ends_though_a_store_hangs_that_it_waited_for(
    hung: Config, tmp_path: Path
) -> None:
    topic = f"photos_1.0.0_{'0' * 32}.abc"
    code = (
        "import asyncio, dscache, os, signal, threading\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"asyncio.run(dscache.wait_for_completion({topic!r}))"
    )
    done = run(code, hung, tmp_path)
    assert "KeyboardInterrupt" in done.stderr


@pytest.mark.parametrize("port", ["99999", "9000x"])
def test_an_endpoint_whose_port_is_none(port: str) -> None:
    with pytest.raises(ConfigError, match=rf"endpoint: 'http://127.0.0.1:{port}'.*port"):
        SignedHttp(CONFIG._replace(endpoint=f"http://127.0.0.1:{port}"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The AWS configuration file of this machine; nothing else gives credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/config")
    return tmp_path / "config"


def test_a_profile_that_does_not_exist(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(ConfigError, match=r"nope.*AWS_PROFILE"):
        SignedHttp(CONFIG._replace(access_key="")).presign("GET", "datasets/x", 60)


def test_credentials_that_cannot_be_renewed_for_a_while(machine: Path) -> None:
    """Never had any: that is an error. Had some: they are waited for, like a store."""
    program, fails = machine.with_name("program"), machine.with_name("fails")
    program.write_text(
        f"#!/bin/sh\n[ -e {fails} ] && exit 1\n"
        'echo \'{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b",'
        ' "Expiration": "2000-01-01T00:00:00Z"}\'\n'
    )
    program.chmod(0o755)
    machine.write_text(f"[default]\ncredential_process = {program}\n")
    fails.touch()
    signed = SignedHttp(CONFIG._replace(access_key=""))
    with pytest.raises(AccessDenied, match="could not be loaded"):
        signed.presign("GET", "datasets/x", 60)
    fails.unlink()
    signed._credentials.get()
    fails.touch()
    with pytest.raises(StoreUnreachable, match="could not be renewed"):
        signed.presign("GET", "datasets/x", 60)


def test_no_credentials(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AccessDenied, match="no credentials for http"):
        SignedHttp(CONFIG._replace(access_key="")).send("GET", "datasets/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-this-machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = SignedHttp(CONFIG._replace(access_key="")).presign("GET", "datasets/x", 60)
    assert "X-Amz-Credential=of-this-machine" in url
