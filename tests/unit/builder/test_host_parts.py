"""Pure parts of the handler host: decisions, messages, plans, checksums."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import blake3
import pytest

from dscache_builder.child_environ import handler_environment, tool_environment
from dscache_builder.commands.source_watch import is_source
from dscache_builder.commands.trial import report_times
from dscache_builder.hosting.host.assignment import Assignment
from dscache_builder.hosting.host.channel import LineReader, write_line
from dscache_builder.hosting.host.checksums import Checksums, checksums_of
from dscache_builder.hosting.host.current_sample import CurrentSample
from dscache_builder.hosting.host.deaths import (
    after_death,
    allowed_bad,
    describe_death,
    fewer_workers,
    too_many_bad,
    was_killed,
)
from dscache_builder.hosting.host.failures import HostFailure, failure_event, is_out_of_memory
from dscache_builder.hosting.host.plan_subsets import mixed_samples, only_samples, without
from dscache_builder.hosting.host.process import EXIT_OUT_OF_MEMORY, Ending
from dscache_builder.hosting.host.raw_revision import raw_revision
from dscache_builder.hosting.messages import PreviewResult
from dscache_sdk.errors import OptionsError, RawDataError, SampleError
from dscache_sdk.plan import Plan, ShardPlan
from dscache_sdk.records import RecordWriter
from dscache_sdk.samples import Sample

MIB = 1 << 20
ENVIRONMENT = Path("/e/bin/python")


@pytest.mark.parametrize(
    ("deaths", "tries", "verdict"),
    [
        (["a"], 2, "again"),
        (["a", "a"], 2, "leave-out"),
        (["a", "b", "a"], 2, "leave-out"),
        (["a", "b"], 2, "again"),
        (["a", "b", "c", "d"], 2, "give-up"),
        ([""], 2, "again"),
        (["", ""], 2, "give-up"),
        ([""], 1, "give-up"),
    ],
)
def test_what_follows_from_deaths(deaths: list[str], tries: int, verdict: str) -> None:
    assert after_death(deaths, tries) == verdict


@pytest.mark.parametrize(
    ("ending", "overdue", "killed"),
    [
        (Ending(9, 0, 0), False, True),
        (Ending(15, 0, 0), False, True),
        (Ending(9, 0, 0), True, False),
        (Ending(11, 0, 0), False, False),
        (Ending(0, EXIT_OUT_OF_MEMORY, 0), False, False),
    ],
)
def test_a_kill_comes_from_outside(ending: Ending, overdue: bool, killed: bool) -> None:
    assert was_killed(ending, overdue) is killed


@pytest.mark.parametrize(
    ("limit", "running", "left"), [(8, 8, 4), (8, 3, 1), (4, 7, 2), (2, 2, 1), (1, 3, 1)]
)
def test_half_of_the_workers_go_on(limit: int, running: int, left: int) -> None:
    assert fewer_workers(limit, running) == left


@pytest.mark.parametrize(
    ("limit", "samples", "allowed"), [(0, 9, 0), (3, 9, 3), (0.5, 9, 4), (1.0, 9, 9), (1, 9, 1)]
)
def test_a_count_or_a_fraction(limit: int | float, samples: int, allowed: int) -> None:
    assert allowed_bad(limit, samples) == allowed


@pytest.mark.parametrize("limit", [-1, -0.5, 1.5])
def test_neither_a_count_nor_a_fraction(limit: int | float) -> None:
    with pytest.raises(ValueError, match="max_bad_samples"):
        allowed_bad(limit, 9)


def test_the_message_of_one_bad_sample_too_many() -> None:
    assert too_many_bad("x failed", 1, 0) == "x failed"
    assert too_many_bad("x failed", 3, 2).endswith("(3 samples failed; max_bad_samples allows 2)")


def test_deaths_of_a_sample_are_settled_once_it_is_left_out() -> None:
    assignment = Assignment({"do": "shard", "index": 3}, "name", samples=4, examples=8)
    assignment.deaths += ["x", "y", "x"]
    assignment.leave_out("x", "it kills")
    assert assignment.deaths == ["y"]
    assert assignment.message == {"do": "shard", "index": 3, "leave_out": ["x"]}
    assignment.bad["a"] = {"sample": "a", "error": "e", "traceback": ""}
    bad_samples = [(bad["sample"], bad.get("repeatable", True)) for bad in assignment.bad_samples]
    assert bad_samples == [("a", True), ("x", False)]
    assignment.begin()
    assert [bad["sample"] for bad in assignment.bad_samples] == ["x"]
    assert [assignment.examples_done(begun) for begun in (0, 1, 2, 4)] == [0, 0, 2, 6]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OptionsError("size[0]", "too big"), "options", "option 'size[0]': too big"),
        (RawDataError("no samples"), "raw-data", "no samples"),
        (SampleError("s", 1, "ValueError: x"), "handler", "sample 's', variation 1: ValueError: x"),
        (OSError(errno.ENOSPC, "full"), "disk", "disk is full"),
        (MemoryError(), "worker-killed", "out of memory"),
        (KeyError("x"), "handler", "KeyError: 'x'"),
        (SystemExit(3), "handler", "SystemExit: 3"),
        (HostFailure("environment", "words"), "environment", "words"),
    ],
)
def test_errors_are_told_by_kind(error: BaseException, kind: str, text: str) -> None:
    event = failure_event(error)
    assert (event["event"], event["kind"]) == ("failure", kind)
    assert text in event["message"]
    assert "\n" not in event["message"]


def test_the_cause_of_a_bad_sample_is_looked_at() -> None:
    error = SampleError("s", None, "OSError: full", "trace")
    error.__cause__ = OSError(errno.ENOSPC, "full")
    assert failure_event(error)["kind"] == "disk"
    assert failure_event(error)["sample"] == "s"
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)


def test_a_process_that_ended_is_told_with_what_it_was_doing() -> None:
    crashed = describe_death(Ending(11, 0, 50 * MIB), "s", False, None, None)
    assert crashed == (
        "worker-killed",
        "the handler's process was killed by SIGSEGV (invalid memory access in native code) "
        "(peak memory 50 MiB) on sample 's'",
    )
    slow = describe_death(Ending(9, 0, 0), "s", True, 2.5, None)
    assert slow == ("time-limit", "sample 's' took longer than 2.5 s (limit for one sample)")
    kind, words = describe_death(Ending(0, EXIT_OUT_OF_MEMORY, 0), "", False, None, 600 * MIB)
    assert (kind, "600 MiB" in words) == ("worker-killed", True)
    _, left = describe_death(Ending(0, 3, 0), "", False, None, None)
    assert "exit code 3" in left


def test_lines_survive_being_cut_anywhere() -> None:
    read, write = os.pipe()
    reader = LineReader(read)
    os.write(write, b'{"a":1}\n{"b"')
    assert reader.read() == [{"a": 1}]
    os.write(write, b":2}\n\ntorn{\n")
    write_line(write, {"c": "é\n"})
    os.close(write)
    assert reader.read() == [{"b": 2}, {"c": "é\n"}]
    assert (reader.read(), reader.ended) == ([], True)
    os.close(read)


def test_the_first_line_leaves_the_others() -> None:
    read, write = os.pipe()
    os.write(write, b'{"a":1}\n{"b":2}\n')
    os.close(write)
    reader = LineReader(read)
    assert reader.first() == {"a": 1}
    assert (reader.held(), reader.held()) == ([{"b": 2}], [])
    assert reader.first() is None
    os.close(read)


def test_a_slot_is_read_by_another_process() -> None:
    slot = CurrentSample()
    child = os.fork()
    if child == 0:
        slot.begin("one", 5.0)
        slot.begin("two/é" + "x" * 9000, 7.0)
        os._exit(0)
    os.waitpid(child, 0)
    work = slot.read()
    assert (work.begun, work.started_at) == (2, 7.0)
    assert work.sample.startswith("two/éxx")
    assert work.overdue(9.5, 2.0)
    assert not work.overdue(8.5, 2.0)
    assert not work.overdue(99.0, None)
    slot.rest()
    assert not slot.read().overdue(99.0, 1.0)
    slot.close()


def test_checksums_roll_and_agree_with_the_file(tmp_path: Path) -> None:
    sums = Checksums()
    path = tmp_path / "x.tfrecord"
    with RecordWriter(path, observers=[sums.update]) as writer:
        for size in (0, 10, 100_000, 3):
            writer.write(b"x" * size)
    content = path.read_bytes()
    again, records = checksums_of(path)
    assert records == 4
    for found in (sums, again):
        assert found.size == len(content)
        assert found.crc32 == zlib.crc32(content)
        assert found.digest == blake3.blake3(content).hexdigest()


def test_a_plan_without_some_samples_keeps_the_others() -> None:
    samples = [Sample("a"), Sample("b"), Sample("c")]
    shards = [ShardPlan(0, "x", "train", [0, 1], 2), ShardPlan(1, "y", "val", [2], 1)]
    plan = Plan(shards, samples, 3, "digest")
    assert without(plan, 0, []) is plan
    assert without(plan, 0, ["a"]).shards[0].samples == [1]
    assert without(plan, 0, ["c"]).shards[1].samples == [2]
    assert [shard.samples for shard in only_samples(plan, 2, ["a"]).shards] == [[1]]


def test_a_preview_shows_samples_as_training_will_meet_them() -> None:
    samples = [Sample(name) for name in "abcd"]
    shards = [ShardPlan(0, "x", "train", [3, 1], 2), ShardPlan(1, "y", "val", [0, 2], 2)]
    plan = Plan(shards, samples, 4, "digest")
    assert [shard.samples for shard in mixed_samples(plan, 3).shards] == [[3, 1, 0]]
    assert [shard.samples for shard in mixed_samples(plan, 9, ["b"]).shards] == [[3, 0, 2]]


def test_the_revision_of_raw_data_follows_every_file(tmp_path: Path) -> None:
    assert raw_revision(tmp_path / "nothing") == ""
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "one"
    file.write_text("1")
    os.utime(file, ns=(1, 1))
    first = raw_revision(tmp_path)
    assert raw_revision(tmp_path) == first
    os.utime(file, ns=(1, 2))
    touched = raw_revision(tmp_path)
    file.rename(tmp_path / "a" / "two")
    assert len({first, touched, raw_revision(tmp_path)}) == 3


def test_handlers_get_named_variables_only() -> None:
    outer = {"AWS_ACCESS_KEY_ID": "x", "https_proxy": "x", "LANG": "de_DE.UTF-8", "FOO": "x"}
    found = handler_environment(ENVIRONMENT, Path("/scratch/work"), outer)
    assert "x" not in found.values()
    assert found["LANG"] == "de_DE.UTF-8"
    assert found["PATH"].startswith("/e/bin:")
    assert found["OPENBLAS_NUM_THREADS"] == "1"
    assert found["MALLOC_MMAP_THRESHOLD_"] == str(64 * MIB)


def test_tools_get_the_network_but_no_credentials_of_the_store() -> None:
    outer = {"AWS_X": "1", "DSCACHE_X": "1", "VIRTUAL_ENV": "1", "HTTPS_PROXY": "p", "PATH": "/b"}
    found = tool_environment(outer)
    assert found == {"HTTPS_PROXY": "p", "PATH": "/b", "GIT_TERMINAL_PROMPT": "0"}


@pytest.mark.parametrize(
    ("path", "watched"),
    [
        ("/p/src/handler.py", True),
        ("/p/cfg.json", True),
        ("/p/.git/index.py", False),
        ("/p/__pycache__/x.py", False),
        ("/p/try-out/contact-sheet.png", False),
    ],
)
def test_what_counts_as_a_source(path: str, watched: bool) -> None:
    assert is_source(path) is watched


def test_times_are_reported_by_sample() -> None:
    result = PreviewResult("", {"a": 0.001, "b": 0.009, "c": 0.002}, [])
    assert report_times(result)[-1] == "time: 3 samples, median 2.0 ms, slowest 9.0 ms (b)"
