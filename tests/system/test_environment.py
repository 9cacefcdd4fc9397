"""Environments made by the real uv, from wheels and git repositories on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uv
from filelock import FileLock

from dscache.protocol.manifests import Lock
from dscache_builder.environments import resolver
from dscache_builder.environments.environment import Environments, in_use, lock_digest
from dscache_builder.environments.resolver import Resolver
from dscache_builder.failure import EnvironmentFailed
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import HostRequest, ShardBuilt
from dscache_sdk.example import decode_example
from dscache_sdk.records import read_records
from support.packages import HandlerPackage, own_wheels
from support.running import idle, wait_until
from support.troubles import PLAIN

pytestmark = pytest.mark.system

CODE = """
    from dscache_sdk import DatasetHandler, Sample, Scalar

    class Answer(DatasetHandler, name="answer"):
        features = {"answer": Scalar("int64")}

        def samples(self):
            yield Sample("only")

        def example(self, loaded, sample, rng):
            return {"answer": ANSWER}

    ANSWER = %d
"""


def answer(version: str, value: int) -> HandlerPackage:
    """A handler package whose only example says `value`."""
    return HandlerPackage("answer-handler", CODE % value, {"answer": "Answer"}, version)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of this checkout's packages and of two versions of a handler."""
    folder = own_wheels(tmp_path_factory.mktemp("wheels"))
    for version, value in (("1.0.0", 41), ("1.1.0", 42)):
        answer(version, value).wheel(tmp_path_factory.mktemp("answer"), folder)
    return folder


@pytest.fixture
def environments(wheels: Path, tmp_path: Path) -> Environments:
    return Environments(tmp_path / "environments", find_links=[str(wheels)])


def records_of(python: Path, entry_point: str, scratch: Path) -> list[bytes]:
    """All records that the handler writes."""
    raw = scratch / "raw"
    raw.mkdir(parents=True)
    request = HostRequest(entry_point, entry_point, {}, raw, scratch, scratch / "log", workers=1)
    with HostClient(python, request, heartbeat=idle) as host:
        host.describe()
        indices = range(len(host.plan().shards))
        events = list(host.build(indices, lambda: True))
        paths = [event.path for event in events if isinstance(event, ShardBuilt)]
        return [record for path in paths for record in read_records(path)]


def number_in(record: bytes, name: str) -> int:
    return int(decode_example(record)[name][0])


# Versions.


def test_two_versions_side_by_side(environments: Environments, tmp_path: Path) -> None:
    found = {}
    for version in ("1.0.0", "1.1.0"):
        lock = environments.resolve("answer-handler=={version}", version, heartbeat=idle)
        python = environments.ensure(lock, heartbeat=idle)
        (record,) = records_of(python, "answer", tmp_path / version)
        found[version] = number_in(record, "answer")
    assert found == {"1.0.0": 41, "1.1.0": 42}


def test_a_version_that_does_not_exist(environments: Environments) -> None:
    with pytest.raises(EnvironmentFailed) as raised:
        environments.resolve("answer-handler=={version}", "9.9.9", heartbeat=idle)
    assert raised.value.kind == "environment"
    assert raised.value.message == (
        "answer-handler==9.9.9: no such version (available: 1.0.0, 1.1.0)"
    )
    assert "answer-handler==9.9.9" in raised.value.traceback


def test_every_pin_has_hashes_and_no_address(environments: Environments) -> None:
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    pins = [line for line in lock.requirements.splitlines() if not line.startswith(" ")]
    names = {pin.partition("==")[0] for pin in pins}
    assert {"answer-handler", "dscache-sdk", "blake3", "isal", "numpy"} <= names
    assert all(pin.endswith("\\") for pin in pins)  # its hashes follow
    assert "://" not in lock.requirements
    assert lock.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert msgspec.json.decode(msgspec.json.encode(lock), type=Lock) == lock


def test_a_wheel_that_is_not_the_locked_one(
    environments: Environments, wheels: Path, tmp_path: Path
) -> None:
    """Another file under the name of a locked release, as another builder may have it."""
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    links = shutil.copytree(wheels, tmp_path / "links")
    answer("1.0.0", 666).wheel(tmp_path / "changed", links)
    other = Environments(tmp_path / "other", find_links=[str(links)])
    with pytest.raises(EnvironmentFailed, match="Hash mismatch"):
        other.ensure(lock, heartbeat=idle)


def test_a_lock_for_another_python(environments: Environments) -> None:
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    older = msgspec.structs.replace(lock, python="3.9")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(EnvironmentFailed, match=rf"Python 3\.9.*Python {here}"):
        environments.ensure(older, heartbeat=idle)


# Git.


def test_a_plain_package_from_a_git_tag(environments: Environments, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    commit = PLAIN.tagged(repository, "v1.0")
    source = f"git+file://{repository}@{{version}}"
    lock = environments.resolve(source, "v1.0", heartbeat=idle)
    assert lock.commit == commit
    assert lock.source == f"git+file://{repository}@v1.0"
    assert "plain-numbers" not in lock.requirements
    python = environments.ensure(lock, heartbeat=idle)
    listing = subprocess.run(
        [python, "-c", "import importlib.util as u; print(u.find_spec('tensorflow'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listing.stdout.strip() == "None"
    records = records_of(python, "numbers", tmp_path / "scratch")
    assert [number_in(record, "number") for record in records] == [1, 2, 3, 1, 2, 3]


def test_two_tags_are_two_codes(environments: Environments, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    changed = replace(PLAIN, code=PLAIN.code.replace("START = 1", "START = 7"))
    PLAIN.tagged(repository, "v1.0")
    changed.tagged(repository, "v1.1")
    first = {}
    for tag in ("v1.0", "v1.1"):
        lock = environments.resolve(f"git+file://{repository}@{{version}}", tag, heartbeat=idle)
        python = environments.ensure(lock, heartbeat=idle)
        first[tag] = number_in(records_of(python, "numbers", tmp_path / tag)[0], "number")
    assert first == {"v1.0": 1, "v1.1": 7}


def test_a_tag_that_moved_names_both_commits(environments: Environments, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    before = PLAIN.tagged(repository, "v1.0")
    lock = environments.resolve(f"git+file://{repository}@{{version}}", "v1.0", heartbeat=idle)
    after = replace(PLAIN, version="1.0.1").tagged(repository, "v1.0")
    assert before != after
    with pytest.raises(EnvironmentFailed) as raised:
        environments.ensure(lock, heartbeat=idle)
    assert before in raised.value.message
    assert after in raised.value.message


def test_a_tag_that_does_not_exist(environments: Environments, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    PLAIN.tagged(repository, "v1.0")
    with pytest.raises(EnvironmentFailed, match=r"no such tag 'v9' \(available: v1\.0\)"):
        environments.resolve(f"git+file://{repository}@{{version}}", "v9", heartbeat=idle)


# Paths.


def test_a_folder_becomes_a_wheel_that_the_lock_names(
    environments: Environments, tmp_path: Path
) -> None:
    folder = answer("1.0.0", 5).write(tmp_path / "package")
    lock = environments.resolve(str(folder), "1.0.0", heartbeat=idle)
    assert lock.wheel == "answer_handler-1.0.0-py3-none-any.whl"
    python = environments.ensure(lock, heartbeat=idle)
    (record,) = records_of(python, "answer", tmp_path / "scratch")
    assert number_in(record, "answer") == 5


def test_a_folder_that_changed_under_a_version(wheels: Path, tmp_path: Path) -> None:
    """What another builder, which has no copy of the wheel, finds."""
    folder = answer("1.0.0", 5).write(tmp_path / "package")
    one = Environments(tmp_path / "one", find_links=[str(wheels)])
    other = Environments(tmp_path / "other", find_links=[str(wheels)])
    lock = one.resolve(str(folder), "1.0.0", heartbeat=idle)
    answer("1.0.0", 6).write(folder)
    assert one.ensure(lock, heartbeat=idle).exists()
    with pytest.raises(EnvironmentFailed, match=rf"has changed.*sha256:{lock.wheel_sha256}"):
        other.ensure(lock, heartbeat=idle)


def test_a_folder_of_another_version(environments: Environments, tmp_path: Path) -> None:
    folder = answer("1.0.0", 5).write(tmp_path / "package")
    with pytest.raises(
        EnvironmentFailed, match=r"this is version 1\.0\.0, .* 2\.0\.0 is requested"
    ):
        environments.resolve(str(folder), "2.0.0", heartbeat=idle)


def test_a_working_copy_can_be_edited(environments: Environments, tmp_path: Path) -> None:
    folder = answer("1.0.0", 5).write(tmp_path / "package")
    python = environments.ensure_working_copy(folder, heartbeat=idle)
    (record,) = records_of(python, "answer", tmp_path / "before")
    assert number_in(record, "answer") == 5
    answer("1.0.0", 6).write(folder)
    assert environments.ensure_working_copy(folder, heartbeat=idle) == python
    (record,) = records_of(python, "answer", tmp_path / "after")
    assert number_in(record, "answer") == 6


# Making them once.


def test_made_in_time_and_reused_without_uv(
    environments: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    environments.ensure(lock, heartbeat=idle)  # fills uv's cache
    folder = environments.ensure(lock, heartbeat=idle).parent.parent
    shutil.rmtree(folder)
    started = time.monotonic()
    python = environments.ensure(lock, heartbeat=idle)
    made_s = time.monotonic() - started

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be run")

    monkeypatch.setattr(resolver, "run_tool", refuse)
    started = time.monotonic()
    assert environments.ensure(lock, heartbeat=idle) == python
    assert time.monotonic() - started < 0.2
    assert made_s < 1.5


def test_a_half_made_environment_is_made_anew(environments: Environments) -> None:
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    folder = environments.ensure(lock, heartbeat=idle).parent.parent
    (folder / "complete").unlink()
    leftover = folder / "leftover"
    leftover.touch()
    environments.ensure(lock, heartbeat=idle)
    assert not leftover.exists()


_ENSURE = """
import sys
from pathlib import Path
import msgspec
import uv
from dscache.protocol.manifests import Lock
from dscache_builder.environments.environment import Environments

uv.find_uv_bin = lambda: sys.argv[3]
lock = msgspec.json.decode(sys.stdin.buffer.read(), type=Lock)
environments = Environments(Path(sys.argv[1]), find_links=[sys.argv[2]])
print(environments.ensure(lock, heartbeat=lambda: None))
"""


def test_two_processes_make_it_once(
    environments: Environments, wheels: Path, tmp_path: Path
) -> None:
    """A uv that writes down its calls shows how many environments were made."""
    calls = tmp_path / "calls"
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    program = tmp_path / "uv"
    program.write_text(f'#!/bin/sh\necho "$3" >> {calls}\nexec {uv.find_uv_bin()} "$@"\n')
    program.chmod(0o755)
    root = str(tmp_path / "environments")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ENSURE, root, str(wheels), str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(lock))
        process.stdin.close()
        process.stdin = None
    answers = [process.communicate()[0] for process in processes]
    assert answers[0] == answers[1] != b""
    assert [process.returncode for process in processes] == [0, 0]
    assert calls.read_text().split().count("venv") == 1


def test_what_beat_raises_ends_the_making(
    environments: Environments, wheels: Path, tmp_path: Path
) -> None:
    """A build backend that hangs is killed, and nothing half-made stays."""
    folder = answer("1.0.0", 1).write(tmp_path / "package")
    project = folder / "pyproject.toml"
    project.write_text(
        project.read_text().replace('"hatchling.build"', '"hanging"\nbackend-path = ["."]')
    )
    hung = tmp_path / "hung"
    (folder / "hanging.py").write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(hung)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(1000)\n"
    )

    class ClaimLost(Exception):
        pass

    def lost() -> None:
        if hung.exists() and hung.read_text():
            raise ClaimLost

    with pytest.raises(ClaimLost):
        environments.resolve(str(folder), "1.0.0", heartbeat=lost)
    backend = Path("/proc", hung.read_text())
    wait_until(lambda: not backend.exists(), "the build backend is gone")
    assert list((tmp_path / "environments").iterdir()) == []


# Removing those that are not used any more.

DAY_S = 86_400.0


def unused_for(python: Path, days: float) -> None:
    """Make an environment look as if it had last been used so long ago."""
    then = time.time() - days * DAY_S
    os.utime(python.parent.parent / "complete", (then, then))


def test_unused_environments_are_removed(environments: Environments) -> None:
    locks = [
        environments.resolve("answer-handler=={version}", version, heartbeat=idle)
        for version in ("1.0.0", "1.1.0")
    ]
    pythons = [environments.ensure(lock, heartbeat=idle) for lock in locks]
    for python in pythons:
        unused_for(python, 2.0)
    assert environments.prune(3 * DAY_S) == []
    environments.ensure(locks[0], heartbeat=idle)
    assert environments.prune(1 * DAY_S) == [lock_digest(locks[1])[:32]]
    assert [python.exists() for python in pythons] == [True, False]
    assert environments.ensure(locks[1], heartbeat=idle).exists()


def test_an_environment_that_a_long_build_uses_is_kept(environments: Environments) -> None:
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    python = environments.ensure(lock, heartbeat=idle)
    with in_use(python), in_use(python):  # two builds at once
        unused_for(python, 2.0)
        assert environments.prune(DAY_S) == []
    assert environments.prune(DAY_S) == [python.parent.parent.name]


def test_an_environment_that_is_being_made_is_kept(
    environments: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old its folder looks: the lock of its maker counts."""
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    removed: list[list[str]] = []
    install = Resolver.install

    def prune_and_install(resolver: Resolver, python: Path, *rest: Any) -> None:
        folder = python.parent.parent
        os.utime(folder, (0, 0))
        removed.append(environments.prune(DAY_S))
        install(resolver, python, *rest)

    monkeypatch.setattr(Resolver, "install", prune_and_install)
    assert environments.ensure(lock, heartbeat=idle).exists()
    assert removed == [[]]


def test_a_build_that_starts_while_its_environment_is_removed_gets_a_whole_one(
    environments: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the lock, then makes the environment again."""
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    python = environments.ensure(lock, heartbeat=idle)
    unused_for(python, 2.0)
    started: list[Future[Path]] = []
    remove = shutil.rmtree

    with ThreadPoolExecutor(1) as builds:

        def start_a_build_and_remove(folder: Path, **options: Any) -> None:
            if not started:
                waits = threading.Event()
                started.append(builds.submit(environments.ensure, lock, heartbeat=waits.set))
                assert waits.wait(20), "the build waits for the lock"
                assert not started[0].done()
            remove(folder, **options)

        monkeypatch.setattr(shutil, "rmtree", start_a_build_and_remove)
        assert environments.prune(DAY_S) == [python.parent.parent.name]
        assert started[0].result(60) == python
    assert subprocess.run([python, "-c", "import dscache_sdk"]).returncode == 0


def test_a_build_that_started_just_before_keeps_its_environment(
    environments: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of its last use is read under the lock under which `ensure` sets it."""
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    python = environments.ensure(lock, heartbeat=idle)
    unused_for(python, 2.0)
    acquire = FileLock.acquire
    ensured: list[Path] = []

    def ensure_then_acquire(lock_file: FileLock, *arguments: Any, **named: Any) -> Any:
        if not ensured:
            ensured.append(python)
            environments.ensure(lock, heartbeat=idle)
        return acquire(lock_file, *arguments, **named)

    monkeypatch.setattr(FileLock, "acquire", ensure_then_acquire)
    assert environments.prune(DAY_S) == []
    assert ensured == [python]


def test_unused_working_copies_are_removed(environments: Environments, tmp_path: Path) -> None:
    folder = answer("1.0.0", 5).write(tmp_path / "package")
    python = environments.ensure_working_copy(folder, heartbeat=idle)
    unused_for(python, 2.0)
    assert environments.prune(DAY_S) == [python.parent.parent.name]
    assert folder.exists(), "the author's folder is not touched"


def test_a_half_removed_environment_is_removed_later(
    environments: Environments, tmp_path: Path
) -> None:
    """What a builder leaves that is killed in the middle of it."""
    lock = environments.resolve("answer-handler=={version}", "1.0.0", heartbeat=idle)
    folder = environments.ensure(lock, heartbeat=idle).parent.parent
    for name in ("complete", "pyvenv.cfg"):
        (folder / name).unlink()
    assert environments.prune(DAY_S) == []
    os.utime(folder, (0, 0))
    assert environments.prune(DAY_S) == [folder.name]
    assert not folder.exists()


def test_a_removed_environment_comes_back_from_the_kept_wheel(
    environments: Environments, tmp_path: Path
) -> None:
    """A wheel built from a folder is the only copy of a version once the folder has changed."""
    folder = answer("1.0.0", 5).write(tmp_path / "package")
    lock = environments.resolve(str(folder), "1.0.0", heartbeat=idle)
    python = environments.ensure(lock, heartbeat=idle)
    answer("1.1.0", 6).write(folder)
    unused_for(python, 2.0)
    assert environments.prune(DAY_S) == [python.parent.parent.name]
    (record,) = records_of(environments.ensure(lock, heartbeat=idle), "answer", tmp_path / "again")
    assert number_in(record, "answer") == 5
