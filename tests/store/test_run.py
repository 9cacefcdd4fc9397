"""`dscache run`: the command in place of dscache, with the dataset locked as long as it runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.spec import load_spec
from dscache.store.s3 import Store
from support.datasets import publish, random_files
from support.running import dscache, start_dscache, wait_until

INTERRUPTED, TERMINATED = 7, 9
TRAINING = f"""
import signal, sys, time
def end(code):
    time.sleep(1)  # it writes a checkpoint
    sys.exit(code)
signal.signal(signal.SIGINT, lambda *_: end({INTERRUPTED}))
signal.signal(signal.SIGTERM, lambda *_: end({TERMINATED}))
print("started", sys.argv[1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def config(store: Store, tmp_path: Path) -> Path:
    """The config of a dataset that is in the store."""
    live = publish(store, random_files([1000]))
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(live.spec.members))
    return path


@pytest.fixture
def training(client_config: Config, config: Path) -> Iterator[subprocess.Popen[str]]:
    """`dscache run` of a command that has started."""
    words = (sys.executable, "-c", TRAINING, "{path}")
    process = start_dscache(client_config, "run", str(config), "--", *words)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("started ")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]
)
def test_a_signal_reaches_the_command_which_may_take_its_time(
    training: subprocess.Popen[str], sent: signal.Signals, code: int
) -> None:
    training.send_signal(sent)
    assert training.wait(20) == code


def test_the_dataset_cannot_be_removed_while_the_command_runs(
    training: subprocess.Popen[str], client_config: Config, config: Path
) -> None:
    def remove() -> int:
        return dscache(client_config, "cache", "rm", load_spec(config).key).code

    assert remove() != 0
    training.kill()
    training.wait(10)
    assert wait_until(lambda: remove() == 0, "the lock ended with the command", 10)


@pytest.mark.parametrize(("program", "why"), [("/nowhere", "No such file"), ("/", "Permission")])
def test_a_command_that_cannot_be_started(
    client_config: Config, config: Path, program: str, why: str
) -> None:
    ran = dscache(client_config, "run", str(config), "--", program, "{path}")
    assert ran.code == 127
    assert f"cannot run {program!r}: {why}" in ran.err


def test_the_exit_code_is_that_of_the_command(client_config: Config, config: Path) -> None:
    dies = "import os; os.kill(os.getpid(), 15) or '{path}'"
    ran = dscache(client_config, "run", str(config), "--", sys.executable, "-c", dies)
    assert ran.code == -signal.SIGTERM
