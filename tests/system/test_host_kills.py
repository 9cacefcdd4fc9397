"""Kills from outside: a host that dies is started again, and the build ends as an undisturbed one.

Victims are the guard, the serving process, both with all workers (`group`), and one worker.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting import client
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import Advanced, Event, HostRequest, ShardBuilt
from support import processes
from support.hosting import built, failure_of, good, ids
from support.running import idle, wait_until
from support.troubles import write_samples

pytestmark = pytest.mark.system

Troubles = Callable[..., HostClient]
HOSTS = ["guard", "server", "group"]
SINGLE = {"batch_size": 1}
ESTIMATED = {"batch_size": None}  # planning makes the first samples


class AtWork(NamedTuple):
    """A plain handler within its run: its host, the events of the build, its folder of flags."""

    host: HostClient
    events: Iterator[Event]
    flags: Path


def kill(victim: str) -> None:
    """SIGKILL to one process of the only host, or to all of them; returns when the host is gone."""
    guard, server = processes.guard(), processes.server()
    if victim == "group":
        os.killpg(guard, signal.SIGKILL)
    else:
        os.kill({"guard": guard, "server": server}[victim], signal.SIGKILL)
    wait_until(lambda: not processes.living({guard, server}), "the host is gone", limit_s=10)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The folder of raw data that `troubles` fills."""
    return tmp_path / "raw"


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts follow at once; as many of them as otherwise."""
    monkeypatch.setattr(client, "RESTART_PAUSES_S", (0.0,) * len(client.RESTART_PAUSES_S))


def release(raw: Path) -> None:
    """Let held samples go on."""
    (raw / "hold").unlink()


def hold(raw: Path) -> None:
    """Stop at samples with the word `hold`."""
    raw.mkdir(exist_ok=True)
    (raw / "hold").touch()


def until_held(events: Iterator[Event], raw: Path, sample: str) -> list[Event]:
    """Take events until a process is held within the sample."""
    taken = []
    while not (raw / f"{sample}.at").exists():
        taken.append(next(events))
    return taken


def shards_in(events: Iterator[Event] | list[Event]) -> list[ShardBuilt]:
    return [event for event in events if isinstance(event, ShardBuilt)]


def digests(shards: list[ShardBuilt]) -> list[tuple[str, str]]:
    return sorted((shard.name, shard.digest) for shard in shards)


@pytest.mark.parametrize("victim", HOSTS)
def test_a_host_killed_while_building_goes_on(
    troubles: Troubles, raw: Path, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = {**good(4), "last.txt": "hold"}
    with troubles(words, config=SINGLE, workers=2) as host:
        undisturbed = digests(built(host))
    (raw / "last.txt.at").unlink()
    hold(raw)
    with troubles(words, config=SINGLE, workers=2) as host:
        host.describe()
        plan = host.plan()
        events = host.build(range(len(plan.shards)), lambda: True)
        before = until_held(events, raw, "last.txt")
        files = {shard.path: shard.path.stat() for shard in shards_in(before)}
        kill(victim)
        release(raw)
        after = list(events)
        shards = shards_in([*before, *after])
        assert digests(shards) == undisturbed
        assert all(path.stat() == stat for path, stat in files.items())
        told = [event.examples_done for event in [*before, *after] if isinstance(event, Advanced)]
        assert told == sorted(told)
        assert host.features()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "SIGKILL" in warning.getMessage()
    assert "starting it again" in warning.getMessage()


@pytest.mark.parametrize("victim", HOSTS)
def test_a_host_killed_while_planning_plans_the_same(
    pythons: Callable[[str], Path],
    request_for: Callable[..., HostRequest],
    raw: Path,
    victim: str,
) -> None:
    request = request_for(
        "troubles", write_samples(raw, {"a.txt": "hold", "b.txt": "good"}), config=ESTIMATED
    )
    with HostClient(pythons("troubles"), request, heartbeat=idle) as host:
        expected = host.plan()
    (raw / "a.txt.at").unlink()
    hold(raw)
    beat = killer(raw, "a.txt", victim)
    with HostClient(pythons("troubles"), request, heartbeat=beat) as host:
        plan = host.plan()
        assert not (raw / "hold").exists()
        assert (plan.digest, plan.shards) == (expected.digest, expected.shards)
        assert ids(built(host, plan)) == ["a.txt", "b.txt"]


def killer(raw: Path, sample: str, victim: str) -> Callable[[], None]:
    """A heartbeat that kills when the sample is held, once, and releases it."""

    def beat() -> None:
        if (raw / f"{sample}.at").exists() and (raw / "hold").exists():
            kill(victim)
            release(raw)

    return beat


@pytest.mark.parametrize("victim", HOSTS)
def test_an_idle_host_that_is_killed_is_started_again(troubles: Troubles, victim: str) -> None:
    with troubles(good(4)) as host:
        processes.server()
        kill(victim)
        assert not host.describe().plain
        kill(victim)
        plan = host.plan()
        kill(victim)
        assert ids(built(host, plan)) == sorted(good(4))
        kill(victim)
        assert host.features()


def test_a_host_killed_at_its_very_start(troubles: Troubles) -> None:
    with troubles(good(1)) as host:
        kill("guard")
        assert ids(built(host)) == sorted(good(1))


def test_a_guards_death_is_noticed_though_a_process_keeps_its_pipes(
    troubles: Troubles, raw: Path
) -> None:
    hold(raw)
    with troubles({"a.txt": "fork-and-hold"}) as host:
        plan = host.plan()
        events = host.build(range(len(plan.shards)), lambda: True)
        until_held(events, raw, "a.txt")
        kill("guard")
        release(raw)
        assert ids(shards_in(events)) == ["a.txt"]


@pytest.mark.usefixtures("no_pauses")
def test_a_host_that_always_dies_fails_with_the_cause(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    failure = failure_of(troubles({"bad.txt": "kill-parent"}, max_bad_samples=1))
    assert failure.kind == "worker-killed"
    assert "SIGKILL" in failure.message
    restarts = len(client.RESTART_PAUSES_S)
    assert f"{restarts + 1} times" in failure.message
    again = [record for record in caplog.records if "starting it again" in record.getMessage()]
    assert len(again) == restarts


@pytest.mark.usefixtures("no_pauses")
def test_kills_with_a_shard_finished_in_between_are_not_counted(
    troubles: Troubles, raw: Path
) -> None:
    count = 2 * len(client.RESTART_PAUSES_S) + 2
    with troubles(good(count), config=SINGLE) as host:
        plan = host.plan()
        before = processes.open_files()
        shards = []
        for event in host.build(range(count), lambda: True):
            if isinstance(event, ShardBuilt):
                shards.append(event)
                kill("guard")
        assert ids(shards) == sorted(good(count))
        assert len(shards) == len(plan.shards)
        assert len(processes.open_files()) == len(before)


def test_bad_samples_of_earlier_hosts_still_count(troubles: Troubles, raw: Path) -> None:
    hold(raw)
    words = {"a.txt": "raises", "b.txt": "hold", "c.txt": "raises"}
    with troubles(words, config=SINGLE, max_bad_samples=1) as host:
        plan = host.plan()
        named = {shard_sample(index, words): index for index in range(len(plan.shards))}
        order = [named["a.txt"], named["b.txt"], named["c.txt"]]
        events = host.build(order, lambda: True)
        until_held(events, raw, "b.txt")
        kill("server")
        release(raw)
        with pytest.raises(HandlerFailure, match="2 samples failed; max_bad_samples allows 1"):
            list(events)


def shard_sample(index: int, words: dict[str, str]) -> str:
    """The sample of a shard, where each shard has one."""
    from dscache_sdk.samples import Sample, order_key

    return sorted(map(Sample, words), key=order_key)[index].id


def test_raw_data_that_changed_meanwhile_is_no_continuation(troubles: Troubles, raw: Path) -> None:
    hold(raw)
    with troubles({"a.txt": "hold"}) as host:
        plan = host.plan()
        events = host.build(range(len(plan.shards)), lambda: True)
        until_held(events, raw, "a.txt")
        kill("guard")
        write_samples(raw, {"b.txt": "good"})
        with pytest.raises(HandlerFailure, match="raw data has changed") as raised:
            list(events)
    assert raised.value.kind == "raw-data"


def test_the_heart_beats_while_a_host_starts_again(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], raw: Path
) -> None:
    """The second planning is held until the heart has beaten three more times."""
    hold(raw)
    write_samples(raw, {"a.txt": "hold"})
    release(raw)
    beats: list[float] = []
    killed_at: int | None = None  # the number of beats by then

    def beat() -> None:
        beats.append(time.monotonic())
        if killed_at is not None and len(beats) >= killed_at + 3:
            (raw / "hold").unlink(missing_ok=True)

    request = request_for("troubles", raw, config=ESTIMATED)
    with HostClient(pythons("troubles"), request, heartbeat=beat) as host:
        plan = host.plan()
        kill("guard")
        hold(raw)
        killed_at = len(beats)
        assert ids(built(host, plan)) == ["a.txt"]
    assert max(after - at for at, after in itertools.pairwise(beats)) < 5


def test_what_the_heartbeat_raises_ends_a_restart(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], raw: Path
) -> None:
    class Stopped(Exception):
        pass

    stopping = False

    def beat() -> None:
        if stopping:
            raise Stopped

    request = request_for("troubles", write_samples(raw, {"a.txt": "good"}))
    before = processes.open_files()
    with HostClient(pythons("troubles"), request, heartbeat=beat) as host:
        plan = host.plan()
        kill("guard")
        stopping = True
        with pytest.raises(Stopped):
            built(host, plan)
    assert processes.open_files() == before


def test_a_killed_preview_is_a_hint_and_the_build_goes_on(
    troubles: Troubles, tmp_path: Path
) -> None:
    with troubles(good(2)) as host:
        plan = host.plan()
        kill("server")
        with pytest.raises(HandlerFailure, match="SIGKILL"):
            host.preview(1, tmp_path / "sheet.png")
        assert ids(built(host, plan)) == sorted(good(2))


# Workers.


def test_a_killed_worker_leaves_half_of_them(
    troubles: Troubles, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = dict.fromkeys(good(8), "hold")
    with troubles(words, config=SINGLE, workers=4) as host:
        undisturbed = digests(built(host))
    for at in raw.glob("*.at"):
        at.unlink()
    hold(raw)
    with troubles(words, config=SINGLE, workers=4) as host:
        plan = host.plan()
        events = host.build(range(len(plan.shards)), lambda: True)
        while len(list(raw.glob("*.at"))) < 4:
            next(events)
        os.kill(processes.workers()[0], signal.SIGKILL)
        release(raw)
        most: list[int] = []
        shards = []
        for event in events:
            if isinstance(event, ShardBuilt):
                shards.append(event)
                most.append(len(processes.workers()))
        assert digests(shards) == undisturbed
        assert max(most[3:]) <= 2
        assert "going on with fewer workers: 2" in host.log_tail()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "SIGKILL" in warning.getMessage()
    assert "going on with fewer workers: 2" in warning.getMessage()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_sample_that_kills_its_workers_is_bad(troubles: Troubles, workers: int) -> None:
    words = {**good(5), "bad.txt": "kill-self"}
    with troubles(words, config=SINGLE, workers=workers, max_bad_samples=1) as host:
        shards = built(host)
        (bad,) = [bad for shard in shards for bad in shard.bad]
        assert bad.sample == "bad.txt"
        assert "SIGKILL" in bad.error
        assert ids(shards) == sorted(good(5))


def test_a_sample_that_kills_its_workers_fails_the_build(troubles: Troubles) -> None:
    failure = failure_of(troubles({**good(5), "bad.txt": "kill-self"}, workers=2))
    assert (failure.kind, failure.sample) == ("worker-killed", "bad.txt")


def test_planning_gets_over_a_sample_that_kills_twice(troubles: Troubles) -> None:
    words = {"bad.txt": "kill-self", "good.txt": "good"}
    with troubles(words, config=ESTIMATED, max_bad_samples=1) as host:
        shards = built(host)
        assert [bad.sample for shard in shards for bad in shard.bad] == ["bad.txt"]


# Plain handlers.


@pytest.fixture
def at_work(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> Iterator[Callable[[str], AtWork]]:
    """Start a plain handler, and wait until it waits within its run: `at_work("waiting")`."""
    with ExitStack() as hosts:

        def start(name: str) -> AtWork:
            flags, raw = tmp_path / "flags", tmp_path / "raw"
            raw.mkdir()
            hold(flags)
            request = request_for(name, raw, config={"flags": str(flags)})
            host = hosts.enter_context(
                HostClient(pythons("plain-numbers"), request, heartbeat=idle)
            )
            host.describe()
            assert host.plan().shards == []
            events = host.build([], lambda: True)
            while not (flags / "at").exists():
                assert not isinstance(next(events), ShardBuilt)
            return AtWork(host, events, flags)

        yield start


@pytest.mark.parametrize("victim", [*HOSTS, "worker"])
def test_a_plain_handler_runs_again_from_its_start(
    at_work: Callable[[str], AtWork], victim: str
) -> None:
    host, events, flags = at_work("waiting")
    if victim == "worker":
        os.kill(int((flags / "at").read_text()), signal.SIGKILL)
    else:
        kill(victim)
    release(flags)
    shards = shards_in(events)
    assert [(s.index, s.name, s.records) for s in shards] == [
        (0, "waiting-train.tfrecord-00000-of-00001", 3),
        (1, "waiting-val.tfrecord-00000-of-00001", 3),
    ]
    assert "number" in host.features()["featuresDict"]["features"]


def test_files_of_two_runs_of_a_plain_handler_are_not_mixed(
    at_work: Callable[[str], AtWork],
) -> None:
    """The first run is killed after its first file, and would have had more records."""
    _, events, flags = at_work("halfway")
    kill("server")
    release(flags)
    assert [shard.records for shard in shards_in(events)] == [3, 3]
