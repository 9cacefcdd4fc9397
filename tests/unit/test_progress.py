"""What the waiting terminal shows."""

from __future__ import annotations

import io
import re

import pytest

from dscache.cli.progress import Display

KIB = 1 << 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of tqdm."""
    moment = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: moment[0])
    return moment


def test_what_comes_in_bursts_is_not_shown_as_faster_than_it_is(now: list[float]) -> None:
    terminal = Terminal()
    display = Display(stream=terminal)
    for tick in range(200):  # 512 KiB every two seconds, told ten times a second
        display.transferred(tick // 20 * 512 * KIB, 10240 * KIB)
        now[0] += 0.1
    rates = [float(kib) for kib in re.findall(r"([\d.]+)kB/s", terminal.getvalue())]
    assert rates and 200 < rates[-1] < 300
    assert "MB/s" not in terminal.getvalue()
    display.close()


def test_what_was_there_before_counts_for_no_rate(now: list[float]) -> None:
    terminal = Terminal()
    display = Display(stream=terminal)
    for tick in range(20):  # 5 MiB of 10 are there; 256 KiB/s are added
        display.transferred(5120 * KIB + tick * 256 * KIB, 10240 * KIB)
        now[0] += 1.0
    rates = [float(kib) for kib in re.findall(r"([\d.]+)kB/s", terminal.getvalue())]
    assert rates and max(rates) < 300
    assert "MB/s" not in terminal.getvalue()
    display.close()


def test_without_a_terminal_there_are_lines_now_and_then() -> None:
    stream, moment = io.StringIO(), [0.0]
    display = Display(stream=stream, clock=lambda: moment[0])
    for done in range(0, 101, 5):
        display.transferred(done * KIB, 100 * KIB)
        moment[0] += 1
    assert stream.getvalue().splitlines() == [
        "dscache: downloading 0 % (100.0 KiB)",
        "dscache: downloading 50 % (100.0 KiB)",
        "dscache: downloading 100 % (100.0 KiB)",
    ]


def test_quiet_is_quiet() -> None:
    terminal = Terminal()
    display = Display(quiet=True, stream=terminal)
    display.transferred(1, 2)
    display.note("something")
    display.close()
    assert terminal.getvalue() == ""
