"""The ends of a handler host: no process is left."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import HostRequest
from support.hosting import built
from support.processes import children, living, members
from support.running import wait_until
from support.troubles import write_samples

pytestmark = pytest.mark.system


def test_close_leaves_no_process(troubles: Callable[..., HostClient], tmp_path: Path) -> None:
    with troubles({"a.txt": "child"}) as host:
        host.plan()
        events = host.build([0], lambda: True)
        pid_file = tmp_path / "raw" / "child.pid"
        while not (pid_file.exists() and pid_file.read_text()):
            next(events)
        sleeper = int(pid_file.read_text())
        assert living({sleeper})
    wait_until(lambda: not living({sleeper}), "the handler's child is gone")


def test_what_beat_raises_ends_the_call(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> None:
    class ClaimLost(Exception):
        pass

    def lost() -> None:
        raise ClaimLost

    raw = write_samples(tmp_path / "raw", {"a.txt": "hang"})
    host = HostClient(pythons("troubles"), request_for("troubles", raw), heartbeat=lost)
    with host, pytest.raises(ClaimLost):
        built(host)


_BUILDER = """
import sys
from pathlib import Path
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import HostRequest

python, raw, scratch = map(Path, sys.argv[1:])
request = HostRequest("troubles", "troubles", {"batch_size": 1}, raw, scratch,
                      scratch / "handler.log", workers=2)
with HostClient(python, request, heartbeat=lambda: None) as host:
    host.plan()
    print("planned", flush=True)
    for event in host.build([0, 1], lambda: True):
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_builder_leaves_no_process(
    pythons: Callable[[str], Path], tmp_path: Path, number: signal.Signals
) -> None:
    raw = write_samples(tmp_path / "raw", {"a.txt": "child", "b.txt": "hang"})
    words = (pythons("troubles"), raw, tmp_path / "scratch")
    command = [sys.executable, "-c", _BUILDER, *map(str, words)]
    with _started(command) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline()
        (session,) = children(builder.pid)
        pid_file = raw / "child.pid"
        wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the handler is at work")
        assert len(members(session)) >= 4  # guard, server, workers, the handler's child
        builder.send_signal(number)
        builder.wait()
        wait_until(lambda: not members(session), "its session is empty")


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
