"""Failures of handlers: each is reported as what it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import HostRequest
from support.hosting import built, failure_of, good, ids
from support.running import idle

pytestmark = pytest.mark.system

MIB = 1 << 20


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
