"""The systemd unit of the builder: valid, hardened, and with time for an orderly end."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from dscache.devstack import program

UNIT = Path(__file__).resolve().parents[3] / "infra" / "systemd" / "dscache-builder.service"
INSTALLED = "/opt/dscache/bin/python"
RELEASE_S = 30  # what the builder takes at most to release its claims


class AsWritten(configparser.ConfigParser):
    """Leaves the case of the names alone."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture
def service() -> configparser.SectionProxy:
    """The unit's [Service] section; of settings that are given several times the last one."""
    parser = AsWritten(strict=False, interpolation=None)
    parser.read(UNIT)
    return parser["Service"]


def seconds(value: str) -> int:
    return int(value.removesuffix("s"))


def checked(unit: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of a unit file."""
    words = ["systemd-analyze", "verify", "--man=no", str(unit)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_takes_it_without_a_word(tmp_path: Path) -> None:
    """With an interpreter that exists here in the place of the installed one."""
    text = UNIT.read_text()
    assert text.count(INSTALLED) == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(INSTALLED, sys.executable))
    done = checked(copy)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_would_complain(tmp_path: Path) -> None:
    """The check above can fail: an unknown setting is reported."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("[Service]", "[Service]\nRestrat=always"))
    assert "Restrat" in checked(copy).stderr


def test_it_has_time_to_release_its_claims(service: configparser.SectionProxy) -> None:
    assert service["KillMode"] == "mixed"
    assert seconds(service["TimeoutStopSec"]) > RELEASE_S
    assert program.GRACE_S > RELEASE_S


def test_it_survives_a_worker_that_the_kernel_kills(service: configparser.SectionProxy) -> None:
    """systemd's default, `stop`, would end the builder for any process of the service."""
    assert service["OOMPolicy"] == "continue"


def test_it_says_when_it_is_ready_and_that_it_lives(service: configparser.SectionProxy) -> None:
    assert service["Type"] == "notify"
    assert seconds(service["WatchdogSec"]) >= 60
    assert service["Restart"] == "on-failure"


def test_it_writes_nowhere_but_to_its_own_folders(service: configparser.SectionProxy) -> None:
    assert service["ProtectSystem"] == "strict"
    assert service["DynamicUser"] == "yes"
    assert service["ReadOnlyPaths"] == "-/srv/raw"
    assert "ReadWritePaths" not in service


def test_its_exposure_is_low() -> None:
    """systemd's own score, 0 (closed) to 10 (open)."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:]
