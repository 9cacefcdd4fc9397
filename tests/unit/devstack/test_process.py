"""Processes are found again by what they are, and ended without touching others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dscache.devstack import process
from dscache.devstack.errors import StackError, with_tail
from dscache.devstack.process import Process

WAIT = "import signal; print('up', flush=True); signal.pause()"
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True);"
    "signal.pause()"
)


def spawn(code: str, tmp_path: Path) -> Process:
    """Start Python code that prints `up` once it is."""
    log = tmp_path / "log"
    started = process.spawn([sys.executable, "-c", code], environ={}, log=log)
    assert process.wait_until(lambda: "up" in log.read_text(), timeout_s=30)
    return started


def test_stopping_by_sigterm(tmp_path: Path) -> None:
    started = spawn(WAIT, tmp_path)
    assert process.alive(started)
    assert process.stop(started, grace_s=30)
    assert not process.alive(started)
    assert not process.stop(started, grace_s=30)


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    started = spawn(DEAF, tmp_path)
    times = iter((0.0, 5.0))
    assert process.stop(started, grace_s=1.0, clock=lambda: next(times))
    assert not process.alive(started)


def test_a_kill_reaches_the_children(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys, signal;"
        "p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print('up', p.pid, flush=True); signal.pause()"
    )
    started = spawn(child, tmp_path)
    pid = int((tmp_path / "log").read_text().split()[1])
    process.kill(started)
    assert process.wait_until(lambda: process._started(pid) is None, timeout_s=30)


@pytest.mark.parametrize("other", [{"started": 1}, {"boot": "another-boot"}])
def test_a_number_that_was_given_to_another_process(other: dict[str, Any]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        started = process._started(stranger.pid)
        assert started is not None
        boot = process.BOOT_ID.read_text().strip()
        mistaken = msgspec.structs.replace(Process(stranger.pid, started, boot), **other)
        assert not process.alive(mistaken)
        assert not process.stop(mistaken, grace_s=0)
        process.kill(mistaken)
        assert stranger.poll() is None
        stranger.communicate(b"\n", timeout=30)
    assert stranger.returncode == 0


def test_a_child_that_ended_but_was_not_waited_for_is_not_alive(tmp_path: Path) -> None:
    started = spawn("print('up', flush=True)", tmp_path)
    assert process.wait_until(lambda: not process.alive(started), timeout_s=30)


def test_nothing_is_not_alive() -> None:
    assert not process.alive(None)
    assert not process.stop(None, grace_s=0)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="/no/such/program cannot be started: No such file"):
        process.spawn(["/no/such/program"], environ={}, log=tmp_path / "log")


def test_waiting_sleeps_between_looks_and_gives_up() -> None:
    now = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += 1.0

    assert not process.wait_until(lambda: False, timeout_s=3.0, clock=lambda: now, sleep=sleep)
    assert slept == [process.POLL_S] * 3
    assert process.wait_until(lambda: True, timeout_s=0.0, clock=lambda: now, sleep=sleep)


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert with_tail("it failed", log) == "it failed"
    log.write_text("old\n" + "".join(f"line {i}\n" for i in range(40)))
    text = with_tail("it failed", log)
    assert "line 39" in text
    assert "line 24" not in text
    assert text.endswith(f"full log: {log}")
    assert "old" not in with_tail("it failed", log, since=4)
