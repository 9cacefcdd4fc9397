"""The builder as a service: what it tells systemd over a real socket, from start to stop."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dscache.config import Config
from support.running import Builder, dscache, wait_until, write_spec

NewBuilder = Callable[..., Builder]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of the notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(30)
        yield end


def heard(manager: socket.socket, word: str) -> list[str]:
    """Messages up to the one that holds `word`."""
    messages: list[str] = []
    while not messages or word not in messages[-1]:
        messages.append(manager.recv(4096).decode())
    return messages


def test_ready_watchdog_and_stopping(new_builder: NewBuilder, manager: socket.socket) -> None:
    builder = new_builder()
    builder.environ = {"NOTIFY_SOCKET": str(manager.getsockname()), "WATCHDOG_USEC": "1000000"}
    builder.start()
    before = heard(manager, "READY=1")
    assert not any("WATCHDOG=1" in message for message in before), "not ready, so not alive yet"
    heard(manager, "WATCHDOG=1")
    heard(manager, "WATCHDOG=1")
    assert builder.process is not None
    builder.process.terminate()
    heard(manager, "STOPPING=1")
    assert builder.stop() == 0


def test_it_is_not_ready_before_the_store_answers(
    new_builder: NewBuilder, manager: socket.socket
) -> None:
    builder = new_builder()
    text = builder.toml.read_text()
    start = text.index('endpoint = "')
    end = text.index("\n", start)
    builder.toml.write_text(f'{text[:start]}endpoint = "http://127.0.0.1:1"{text[end:]}')
    builder.environ = {"NOTIFY_SOCKET": str(manager.getsockname())}
    builder.start()
    messages = heard(manager, "waiting for the store")
    assert not any("READY=1" in message for message in messages)
    assert builder.stop() == 0


def test_wrong_credentials_end_it_at_once(new_builder: NewBuilder) -> None:
    builder = new_builder()
    text = builder.toml.read_text()
    start = text.index('secret_key = "') + len('secret_key = "')
    builder.toml.write_text(f"{text[:start]}wrong{text[start:]}")
    builder.start()
    assert builder.wait() == 6
    assert "access denied" in builder.text()
    assert "wrong" not in builder.text()


def test_check_config(new_builder: NewBuilder, numbers: Path) -> None:
    builder = new_builder()
    assert builder.start("--check-config").wait() == 0, builder.text()
    numbers.rename(numbers.with_name("elsewhere"))
    assert builder.start("--check-config").wait() == 2
    wait_until(lambda: "raw data does not exist" in builder.text(), "the folder is named", 5)


def test_unused_environments_are_removed_while_the_builder_runs(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path
) -> None:
    root = tmp_path / "builder" / "state" / "environments"
    root.mkdir(parents=True)  # of this test alone: other builders keep the shared ones
    cfg = write_spec(tmp_path / "c.json", "counting")
    assert dscache(client_config, "request", str(cfg)).code == 0
    builder = new_builder()
    assert builder.start("--once").wait() == 0, builder.text()
    (marker,) = root.glob("*/complete")
    last_used = time.time() - 3 * 86_400
    os.utime(marker, (last_used, last_used))
    kept = new_builder(environments_keep_days=4).start()
    wait_until(lambda: "listening" in kept.text(), "it is up")
    assert kept.stop() == 0
    assert marker.exists()
    new_builder(environments_keep_days=2).start()
    wait_until(lambda: not marker.parent.exists(), "the environment is removed")


def test_environments_are_kept_for_a_day_at_least(new_builder: NewBuilder) -> None:
    builder = new_builder(environments_keep_days=0.5).start()
    assert builder.wait() == 2
    assert "environments_keep_days: 0.5 is less than 1" in builder.text()
