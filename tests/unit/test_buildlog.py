"""The log of a build in the bucket: bounded, followed without gaps, sent seldom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dscache.protocol import layout
from dscache.protocol.buildlog import BuildLog, Follower, continued, text_of
from dscache_builder.attempt.progress import LOG_INTERVAL_S, BucketReporter

KEY = "photos_1.0.0_" + "0" * 32


@given(
    pieces=st.lists(st.text("ab\nä", max_size=40), max_size=20),
    every=st.integers(1, 4),
)
def test_a_follower_sees_everything_once_while_it_keeps_up(pieces: list[str], every: int) -> None:
    log, follower, seen = BuildLog("a1", limit_bytes=400), Follower(), b""
    for number, piece in enumerate(pieces):
        log.add(piece)
        if number % every == 0:
            seen += follower.new(log.body).encode()
    seen += follower.new(log.body).encode()
    assert seen == "".join(pieces).encode()
    assert follower.new(log.body) == ""


def test_the_log_is_bounded_and_says_where_it_begins() -> None:
    log, follower = BuildLog("a1", limit_bytes=10), Follower()
    log.add("0123456789")
    assert follower.new(log.body) == "0123456789"
    log.add("abc")
    assert log.body == b"[build a1, log from byte 3]\n3456789abc"
    assert follower.new(log.body) == "abc"
    log.add("x" * 50)
    assert follower.new(log.body) == "x" * 10, "what was dropped meanwhile is missing"
    assert text_of(log.body) == "x" * 10


def test_the_log_of_another_attempt_is_printed_from_its_beginning() -> None:
    first, second, follower = BuildLog("a1"), BuildLog("a2"), Follower()
    first.add("one line and more\n")
    follower.new(first.body)
    second.add("a longer line than the first attempt had\n")
    assert follower.new(second.body) == "a longer line than the first attempt had\n"


def test_the_rest_of_a_tail() -> None:
    assert continued("", "abc") == "abc"
    assert continued("abc", "abcd") == "d"
    assert continued("abcdef", "defgh") == "defgh", "nothing that was there is found whole"
    text = "".join(f"line {number}\n" for number in range(20_000))
    before, after = text[:100_000][-65_536:], text[:130_000][-65_536:]
    assert continued(before, after) == text[100_000:130_000]


class Bucket:
    """Notes what is put; the clock of the server stands still."""

    def __init__(self) -> None:
        self.puts: list[tuple[str, bytes]] = []

    def now(self) -> float:
        return 0.0

    def put(
        self, name: str, body: bytes, *, metadata: Mapping[str, str] | None = None, **_: Any
    ) -> str:
        self.puts.append((name, body))
        return "etag"

    def delete(self, name: str) -> None:
        self.puts.append((name, b""))

    def logs(self) -> list[str]:
        return [text_of(body) for name, body in self.puts if name == layout.log(KEY)]


def reporter_to(bucket: Any, now: list[float]) -> BucketReporter:
    """A reporter whose time is `now[0]`; `bucket` is as much of a store as it needs."""
    return BucketReporter(bucket, KEY, attempt="a1", clock=lambda: now[0])


def test_the_log_is_sent_every_five_seconds_at_most_and_only_when_it_grew() -> None:
    bucket, now, printed = Bucket(), [100.0], [""]
    reporter = reporter_to(bucket, now)
    reporter.phase("environment")
    assert bucket.logs() == ["00:00:00Z environment\n"]
    with reporter.following(lambda: printed[0]):
        for second in range(60):
            now[0] += 0.5
            printed[0] += f"line {second}\n" if second < 30 else ""
            reporter.tick()
        assert len(bucket.logs()) == 1 + 15 / LOG_INTERVAL_S
    reporter.done()
    last = bucket.logs()[-1]
    assert [line for line in last.splitlines() if "line" in line] == [
        f"line {second}" for second in range(30)
    ]
    assert last.endswith("ended\n")
    assert bucket.puts[-1] == (layout.progress(KEY), b"")


def test_progress_is_written_once_a_second_at_most_also_when_phases_are_short() -> None:
    bucket, now = Bucket(), [100.0]
    reporter = reporter_to(bucket, now)
    for name in ("environment", "planning", "building", "publishing"):
        reporter.phase(name)
        now[0] += 0.3
    written = [name for name, _ in bucket.puts if name == layout.progress(KEY)]
    assert len(written) == 1
    reporter.tick()
    written = [name for name, _ in bucket.puts if name == layout.progress(KEY)]
    assert len(written) == 2
