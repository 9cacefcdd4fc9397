"""The handler host with real processes, in environments made by uv from this checkout's wheels."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import blake3
import pytest

from dscache_builder.environments.environment import Environments
from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import Advanced, HostRequest, PlanSummary, ShardBuilt
from dscache_sdk.example import decode_example
from dscache_sdk.records import read_records
from support.packages import own_wheels
from support.troubles import PLAIN, TROUBLES, write_samples

pytestmark = pytest.mark.system
MIB = 1 << 20
PHOTOS = {"image_size": [128, 128], "crop_size": [96, 96], "batch_size": 2}


def idle() -> None:
    """A heartbeat that does nothing."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of the SDK, of the handlers of this checkout, and of the two for tests."""
    folder = own_wheels(tmp_path_factory.mktemp("wheels"))
    for package in (TROUBLES, PLAIN):
        package.wheel(tmp_path_factory.mktemp(package.name), folder)
    return folder


@pytest.fixture(scope="module")
def pythons(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The interpreter of the environment of a package: `pythons("troubles")`."""
    environments = Environments(tmp_path_factory.mktemp("environments"), find_links=[str(wheels)])

    @functools.cache
    def python(name: str) -> Path:
        lock = environments.resolve(name + "=={version}", "1.0.0", heartbeat=idle)
        return environments.ensure(lock, heartbeat=idle)

    return python


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs, from the wheels of scikit-image and scikit-learn."""
    folder = tmp_path_factory.mktemp("photographs")
    for package, names in {
        "skimage/data": ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg"],
        "sklearn/datasets/images": ["china.jpg", "flower.jpg"],
    }.items():
        top, _, rest = package.partition("/")
        found = __import__(top).__file__
        assert found is not None
        for name in names:
            shutil.copy(Path(found).parent / rest / name, folder)
    return folder


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., HostRequest]:
    """A request with a scratch folder of its own."""
    count = iter(range(100))

    def make(entry_point: str, raw: Path, **changes: object) -> HostRequest:
        scratch = tmp_path / f"scratch-{next(count)}"
        request = HostRequest(
            entry_point=entry_point,
            dataset_name=entry_point,
            config={},
            raw=raw,
            scratch=scratch,
            log=scratch / "handler.log",
            workers=1,
        )
        return replace(request, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def troubles(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> Callable[..., contextlib.AbstractContextManager[HostClient]]:
    """A host of the troubles handler: `troubles({"a.txt": "raises"}, max_bad_samples=1)`."""

    def start(words: dict[str, str], **changes: object) -> HostClient:
        raw = write_samples(tmp_path / "raw", words)
        request = request_for("troubles", raw, **changes)
        return HostClient(pythons("troubles"), request, heartbeat=idle)

    return start


def built(host: HostClient, plan: PlanSummary | None = None) -> list[ShardBuilt]:
    """Build all shards and return them in plan order."""
    plan = plan or host.plan()
    events = host.build(range(len(plan.shards)), lambda: True)
    found = [event for event in events if isinstance(event, ShardBuilt)]
    return sorted(found, key=lambda shard: shard.index)


def failure_of(host: HostClient) -> HandlerFailure:
    """The failure that building everything ends with."""
    with host, pytest.raises(HandlerFailure) as raised:
        built(host)
    return raised.value


def good(count: int) -> dict[str, str]:
    return {f"s{number:02}.txt": "good" for number in range(count)}


def ids(shards: list[ShardBuilt]) -> list[str]:
    records = [record for shard in shards for record in read_records(shard.path)]
    return sorted(decode_example(record)["id"][0].decode() for record in records)


def wait_until(happened: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Look every 10 ms until it happened; fails after `limit_s`."""
    deadline = time.monotonic() + limit_s
    never = threading.Event()
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        never.wait(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def members_of(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(entry.parent.name))
    return found


# Photos: what a build says is what the files are.


def test_photos_shards_are_what_they_are_said_to_be(
    pythons: Callable[[str], Path], photographs: Path, request_for: Callable[..., HostRequest]
) -> None:
    request = request_for("photos", photographs, config=PHOTOS, workers=2)
    python = pythons("dataset-handlers")
    with HostClient(python, request, heartbeat=idle) as host:
        description = host.describe()
        plan = host.plan()
        shards = built(host, plan)
        assert description.plain is False
        assert description.config["variations_per_sample"] == 1
        assert "image_size" in json.dumps(description.options)
        assert "image" in description.features["featuresDict"]["features"]
        assert host.features() == description.features
        assert [(s.index, s.name, s.split) for s in shards] == [
            (s.index, s.name, s.split) for s in plan.shards
        ]
        assert sum(shard.samples for shard in plan.shards) == plan.examples == 7
        for shard, planned in zip(shards, plan.shards, strict=True):
            content = shard.path.read_bytes()
            assert shard.size == len(content)
            assert shard.crc32 == zlib.crc32(content)
            assert shard.digest == blake3.blake3(content).hexdigest()
            assert shard.records == len(list(read_records(shard.path))) == planned.examples
            assert shard.bad == []


def test_photos_are_described_within_half_a_second(
    pythons: Callable[[str], Path], photographs: Path, request_for: Callable[..., HostRequest]
) -> None:
    python = pythons("dataset-handlers")
    taken = []
    for _ in range(3):
        request = request_for("photos", photographs, config=PHOTOS)
        started = time.monotonic()
        with HostClient(python, request, heartbeat=idle) as host:
            host.describe()
            taken.append(time.monotonic() - started)
    assert min(taken) < 0.5


def test_one_worker_and_two_write_the_same_bytes(
    pythons: Callable[[str], Path], photographs: Path, request_for: Callable[..., HostRequest]
) -> None:
    digests = []
    for workers in (1, 2):
        request = request_for("photos", photographs, config=PHOTOS, workers=workers)
        with HostClient(pythons("dataset-handlers"), request, heartbeat=idle) as host:
            digests.append((host.plan().digest, [shard.digest for shard in built(host)]))
    assert digests[0] == digests[1]


def test_preview_draws_the_first_examples(
    pythons: Callable[[str], Path],
    photographs: Path,
    request_for: Callable[..., HostRequest],
    tmp_path: Path,
) -> None:
    from PIL import Image

    with HostClient(
        pythons("dataset-handlers"),
        request_for("photos", photographs, config=PHOTOS),
        heartbeat=idle,
    ) as host:
        line = host.preview(3, tmp_path / "sheet.png")
        assert line.startswith("3 examples, 96x96x3")
        tried = host.try_samples(2, tmp_path / "sheet.png")
        assert len(tried.seconds) == 2
        assert tried.failed == []
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


# Workers.


def test_two_workers_are_two_processes(troubles: Callable[..., HostClient]) -> None:
    words = dict.fromkeys(good(8), "pid")
    with troubles(words, workers=2, config={"batch_size": 1}) as host:
        shards = built(host)
        records = [decode_example(r) for shard in shards for r in read_records(shard.path)]
        pids = {int(record["pid"][0]) for record in records}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_shards_start_only_while_they_may(troubles: Callable[..., HostClient]) -> None:
    with troubles(good(8)) as host:
        plan = host.plan()
        assert len(plan.shards) == 2
        allowed: list[bool] = []
        events = host.build([1, 0], lambda: bool(allowed))
        for _ in range(2):
            assert not isinstance(next(events), ShardBuilt)
        allowed.append(True)
        order = [event.index for event in events if isinstance(event, ShardBuilt)]
        assert order == [1, 0]


def test_progress_never_exceeds_the_plan(troubles: Callable[..., HostClient]) -> None:
    with troubles(good(8)) as host:
        plan = host.plan()
        told = [
            e.examples_done for e in host.build([0, 1], lambda: True) if isinstance(e, Advanced)
        ]
    assert told == sorted(told)
    assert all(done <= plan.examples for done in told)


def test_prints_of_a_handler_go_to_the_log(troubles: Callable[..., HostClient]) -> None:
    with troubles({"a.txt": "chatter", "b.txt": "good"}) as host:
        assert ids(built(host)) == ["a.txt", "b.txt"]
        assert "a word on standard output" in host.log_tail()


def test_handlers_get_a_scrubbed_environment(
    pythons: Callable[[str], Path],
    troubles: Callable[..., HostClient],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pythons("troubles")
    for name in ("AWS_SECRET_ACCESS_KEY", "DSCACHE_SECRET_KEY", "HTTPS_PROXY", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret")
    with troubles({"a.txt": "environment"}) as host:
        (shard,) = built(host)
        (record,) = read_records(shard.path)
    text = decode_example(record)["environment"][0].decode()
    variables = dict(line.split("=", 1) for line in text.splitlines())
    assert "secret" not in variables.values()
    assert variables["OMP_NUM_THREADS"] == "1"
    assert Path(variables["HOME"]).is_relative_to(tmp_path)
    assert variables["TMPDIR"] == variables["HOME"]


# Failures: each is reported as what it is.


def test_a_sample_that_raises(troubles: Callable[..., HostClient]) -> None:
    failure = failure_of(troubles({**good(3), "bad.txt": "raises"}))
    assert failure.kind == "handler"
    assert failure.sample == "bad.txt"
    assert "ValueError: nothing good in bad.txt" in failure.message
    assert 'raise ValueError(f"nothing good in {sample.id}")' in failure.traceback


def test_bad_samples_are_left_out_up_to_the_limit(troubles: Callable[..., HostClient]) -> None:
    words = {**good(6), "x.txt": "raises", "y.txt": "raises"}
    with troubles(words, max_bad_samples=2, workers=2) as host:
        shards = built(host)
        assert ids(shards) == sorted(good(6))
        assert sorted(bad.sample for shard in shards for bad in shard.bad) == ["x.txt", "y.txt"]
        assert all("ValueError" in bad.traceback for shard in shards for bad in shard.bad)
        assert all(bad.repeatable for shard in shards for bad in shard.bad)


@pytest.mark.parametrize("limit", [1, 0.125, 0.2])
def test_one_bad_sample_more_than_allowed(
    troubles: Callable[..., HostClient], limit: int | float
) -> None:
    words = {**good(6), "x.txt": "raises", "y.txt": "raises"}
    failure = failure_of(troubles(words, max_bad_samples=limit))
    assert failure.kind == "handler"
    assert failure.sample in {"x.txt", "y.txt"}
    assert "2 samples failed; max_bad_samples allows 1" in failure.message


def test_a_sample_that_crashes_the_process(troubles: Callable[..., HostClient]) -> None:
    failure = failure_of(troubles({**good(3), "bad.txt": "segfault"}))
    assert failure.kind == "worker-killed"
    assert failure.sample == "bad.txt"
    assert "SIGSEGV" in failure.message
    assert "'bad.txt'" in failure.message
    assert "peak memory" in failure.message
    assert "string_at" in failure.log_tail  # the crash's own traceback is in the log


def test_a_crash_that_does_not_happen_again_is_survived(
    troubles: Callable[..., HostClient],
) -> None:
    with troubles({**good(3), "once.txt": "segfault-once"}) as host:
        assert ids(built(host)) == sorted([*good(3), "once.txt"])


def test_a_sample_that_killed_twice_counts_as_bad(troubles: Callable[..., HostClient]) -> None:
    with troubles({**good(5), "bad.txt": "segfault"}, max_bad_samples=1) as host:
        shards = built(host)
        (bad,) = [bad for shard in shards for bad in shard.bad]
        assert bad.sample == "bad.txt"
        assert "SIGSEGV" in bad.error
        assert not bad.repeatable
        assert ids(shards) == sorted(good(5))


def test_a_sample_that_needs_too_much_memory(troubles: Callable[..., HostClient]) -> None:
    failure = failure_of(troubles({**good(3), "bad.txt": "leak"}, memory_bytes=700 * MIB))
    assert failure.kind == "worker-killed"
    assert failure.sample == "bad.txt"
    assert "more memory than the 700 MiB" in failure.message


def test_a_sample_that_takes_too_long(troubles: Callable[..., HostClient]) -> None:
    failure = failure_of(troubles({**good(3), "bad.txt": "hang"}, sample_seconds=0.5))
    assert failure.kind == "time-limit"
    assert failure.sample == "bad.txt"
    assert "longer than 0.5 s" in failure.message


def test_a_full_disk_is_no_bad_sample(troubles: Callable[..., HostClient]) -> None:
    failure = failure_of(troubles({**good(3), "bad.txt": "full"}, max_bad_samples=4))
    assert failure.kind == "disk"


@pytest.mark.parametrize("word", ["segfault", "hang"])
def test_planning_gets_over_a_sample_that_kills(
    troubles: Callable[..., HostClient], word: str
) -> None:
    """Without a batch_size planning tries samples; the build then tells what is wrong with one."""
    words = {"bad.txt": word, "good.txt": "good"}
    host = troubles(words, config={"batch_size": None}, sample_seconds=0.5, max_bad_samples=1)
    with host:
        plan = host.plan()
        assert plan.examples == 2
        shards = built(host, plan)
        assert [bad.sample for shard in shards for bad in shard.bad] == ["bad.txt"]


def test_threads_that_planning_started_are_not_forked(
    troubles: Callable[..., HostClient],
) -> None:
    words = {**good(2), "thread.txt": "thread"}
    with troubles(words, config={"batch_size": None}) as host:
        assert ids(built(host)) == sorted(words)
        assert "loading the handler again before forking" in host.log_tail()


def test_a_wrong_option(troubles: Callable[..., HostClient]) -> None:
    with (
        troubles(good(1), config={"size": "big"}) as host,
        pytest.raises(HandlerFailure) as raised,
    ):
        host.describe()
    assert raised.value.kind == "options"
    assert "size" in raised.value.message


def test_no_raw_data(troubles: Callable[..., HostClient]) -> None:
    with troubles({}) as host:
        host.describe()
        with pytest.raises(HandlerFailure, match="no samples") as raised:
            host.plan()
    assert raised.value.kind == "raw-data"
    assert "*.txt" in raised.value.message


def test_no_such_handler(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> None:
    request = request_for("nothing", tmp_path)
    host = HostClient(pythons("troubles"), request, heartbeat=idle)
    with host, pytest.raises(HandlerFailure, match="'nothing' is installed here; installed: trou"):
        host.describe()


def test_an_environment_without_the_sdk(
    request_for: Callable[..., HostRequest], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    host = HostClient(bare / "bin" / "python", request_for("any", tmp_path), heartbeat=idle)
    with host, pytest.raises(HandlerFailure, match="environment lacks") as raised:
        host.describe()
    assert raised.value.kind == "environment"


# Plain handlers.


def test_a_plain_handler_runs_as_it_is(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> None:
    request = request_for("numbers", tmp_path, config={"count": 5})
    with HostClient(pythons("plain-numbers"), request, heartbeat=idle) as host:
        description = host.describe()
        plan = host.plan()
        assert (description.plain, description.config) == (True, {"count": 5})
        assert description.options == {"count": {"type": "int", "default": 3}}
        assert (plan.shards, plan.resumable, plan.examples) == ([], False, 0)
        shards = built(host, plan)
        assert [(s.index, s.name, s.split, s.records) for s in shards] == [
            (0, "numbers-train.tfrecord-00000-of-00001", "train", 5),
            (1, "numbers-val.tfrecord-00000-of-00001", "val", 5),
        ]
        for shard in shards:
            content = shard.path.read_bytes()
            assert shard.crc32 == zlib.crc32(content)
            assert shard.digest == blake3.blake3(content).hexdigest()
            assert len(list(read_records(shard.path))) == 5
        assert "number" in host.features()["featuresDict"]["features"]


def test_a_plain_handler_refuses_what_it_does_not_name(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> None:
    request = request_for("numbers", tmp_path, config={"cuont": 5})
    host = HostClient(pythons("plain-numbers"), request, heartbeat=idle)
    with host, pytest.raises(HandlerFailure, match="count") as raised:
        host.describe()
    assert raised.value.kind == "options"


# Ends.


def test_close_leaves_no_process(troubles: Callable[..., HostClient], tmp_path: Path) -> None:
    with troubles({"a.txt": "child"}) as host:
        host.plan()
        events = host.build([0], lambda: True)
        pid_file = tmp_path / "raw" / "child.pid"
        while not (pid_file.exists() and pid_file.read_text()):
            next(events)
        sleeper = int(pid_file.read_text())
        assert is_alive(sleeper)
    wait_until(lambda: not is_alive(sleeper))


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
    print(host._process.pid, flush=True)
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
        session = int(builder.stdout.readline())
        pid_file = raw / "child.pid"
        wait_until(lambda: pid_file.exists() and bool(pid_file.read_text()))
        assert len(members_of(session)) >= 4  # guard, server, workers, the handler's child
        builder.send_signal(number)
        builder.wait()
        wait_until(lambda: not members_of(session))


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
