"""Measure waiting: how soon 1, 100, 1,000 waiters are told, what they cost, and a restart.

    python -m benchmarks.notify [--waiters 1,100,1000] [--runs 20] [--only latency,idle,restart]
                                [--json]

It starts a store of its own. Waiters are spread over 8 processes; each has a connection of its own,
as if it were a process of its own.

latency   from the end of the PUT of a ready marker until the last waiter's listener delivered the
          event (`told`), and until the last waiter that then reads the marker had it (`answered`:
          `dscache.protocol.wait`, one more request each). `lost`: runs in which a listener was not
          told within 5 s
idle      CPU seconds a second of one waiter (a process with one `wait`), and of the store's server
          for each of the waiters
restart   the server is killed and started again: seconds until the last waiter listens again, and
          the most requests in any one second until all have looked, counted by a proxy
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.harness import QUICK, cpu_of, spread, table
from benchmarks.stack import own_store
from dscache.config import Config
from dscache.devstack.localstore import LocalStore
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Live
from dscache.protocol.subscriptions import RunningListener, Subscriptions, start_listener
from dscache.protocol.wait import OutstandingRequest, WaitOptions, put_request, wait
from dscache.spec import Spec
from dscache.store.notifications import Connected, Created, Listener, Signal
from dscache.store.s3 import Store

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.countingproxy import CountingProxy

PROCESSES = 8
IDLE_S = 5.0 if QUICK else 20.0
SETTLE_S = 1.0 if QUICK else 3.0
RETURNED_S = 15.0 if QUICK else 55.0  # all have connected and looked by then
LIMIT_S = 120.0
EVENT_S = 5.0  # an event that is later than this was dropped, which the server may do
CONNECTED = "connected"


def spec(number: int) -> Spec:
    """A dataset that no other run uses."""
    return Spec.of("photos", "1.0.0", {"number": number})


def publish(store: Store, asked: Spec) -> float:
    """PUT the ready marker; when that was done (time.monotonic, which processes share)."""
    name = layout.archive(asked.key, 0)
    live = Live(
        spec=asked, generation=0, zip_key=name, zip_etag="e", zip_size=0, seal="", members=[]
    )
    store.put(layout.ready(asked.key), manifests.encode(live))
    return time.monotonic()


# -- in the processes of the waiters


def serve_listeners(pipe: Connection, config: Config, count: int) -> None:
    """Listen `count` times; for each event, send when the last of them had it."""
    lock = threading.Lock()
    connected, told = [0], dict[str, int]()

    def deliver(signal: Signal) -> None:
        now = time.monotonic()
        with lock:
            if isinstance(signal, Connected):
                connected[0] += 1
                if connected[0] == count:
                    pipe.send((CONNECTED, now))
            elif isinstance(signal, Created):
                told[signal.name] = told.get(signal.name, 0) + 1
                if told[signal.name] == count:
                    pipe.send((signal.name, now))

    listeners = [Listener(config, "datasets/photos_1.0.0_", deliver) for _ in range(count)]
    for listener in listeners:
        listener.start()
    pipe.recv()
    os._exit(0)  # stopping a thousand threads one after the other is nothing to wait for


def serve_waiters(pipe: Connection, config: Config, count: int) -> None:
    """Wait `count` times for each dataset whose number is received; send when the last had it."""
    store = Store(config)
    lock = threading.Lock()
    connected = [0]

    def opened(config: Config, prefix: str, deliver: Callable[[Signal], None]) -> RunningListener:
        def noted(signal: Signal) -> None:
            with lock:
                connected[0] += isinstance(signal, Connected)
                if isinstance(signal, Connected) and connected[0] >= count:
                    pipe.send((CONNECTED, time.monotonic()))
            deliver(signal)

        return start_listener(config, prefix, noted)

    def one(out: OutstandingRequest) -> None:
        with Subscriptions(config, opened).waiting(out.key) as signals:
            how = WaitOptions(signals)
            wait(store, out, lambda _: out, how)
            ended.append(time.monotonic())

    while (number := pipe.recv()) is not None:
        ended: list[float] = []
        connected[0] = 0
        out = put_request(store, spec(number), nonce=f"{os.getpid()}-{number}", client="benchmark")
        threads = [threading.Thread(target=one, args=(out,), daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pipe.send((layout.ready(spec(number).key), max(ended)))
    os._exit(0)


class Crowd:
    """The processes of `count` waiters."""

    def __init__(self, serve: Callable[..., None], config: Config, count: int) -> None:
        self.processes = min(PROCESSES, count)
        spawn = multiprocessing.get_context("spawn")
        self.pipes, self.pids = [], []
        for index in range(self.processes):
            here, there = spawn.Pipe()
            share = count // self.processes + (index < count % self.processes)
            process = spawn.Process(target=serve, args=(there, config, share), daemon=True)
            process.start()
            self.pipes.append(here)
            self.pids.append(process.pid or 0)

    def send(self, message: Any) -> None:
        """To every process."""
        for pipe in self.pipes:
            pipe.send(message)

    def last(self, what: str, *, limit_s: float = LIMIT_S) -> float | None:
        """When the last process was through with it; None when one is not within the limit."""
        deadline = time.monotonic() + limit_s
        times = []
        for pipe in self.pipes:
            message = ("", 0.0)
            while message[0] != what:
                if not pipe.poll(max(deadline - time.monotonic(), 0)):
                    return None
                message = pipe.recv()
            times.append(message[1])
        return max(times)

    def connected(self) -> None:
        """Wait until all of them are connected."""
        if self.last(CONNECTED) is None:
            raise SystemExit(f"not all are connected after {LIMIT_S:g} s")

    def connections(self, since: float) -> list[float]:
        """When any of them was connected again, of what has been sent so far."""
        messages = []
        for pipe in self.pipes:
            while pipe.poll():
                messages.append(pipe.recv())
        return [at for what, at in messages if what == CONNECTED and at >= since]

    def cpu_s(self) -> float:
        """CPU seconds of all processes so far."""
        return sum(cpu_of(pid) or 0.0 for pid in self.pids)


@contextmanager
def crowd(serve: Callable[..., None], config: Config, count: int) -> Iterator[Crowd]:
    """Waiters that are ended afterwards."""
    waiters = Crowd(serve, config, count)
    yield waiters
    waiters.send(None)
    time.sleep(SETTLE_S)  # the server notices that they are gone


# -- what is measured


def latency(server: LocalStore, counts: list[int], runs: int) -> list[dict[str, Any]]:
    """Milliseconds until the last one is told, and until the last one has its answer."""
    store, rows, serial = Store(server.config), [], iter(range(1 << 30))
    for count in counts:
        told, answered = [], []
        with crowd(serve_listeners, server.client_config, count) as listeners:
            listeners.connected()
            for _ in range(runs):
                time.sleep(0.2)
                told.append(_latency_ms(listeners, store, next(serial), EVENT_S))
        with crowd(serve_waiters, server.client_config, count) as waiters:
            for _ in range(max(runs // 4, 1)):
                number = next(serial)
                waiters.send(number)
                waiters.connected()
                time.sleep(SETTLE_S)  # all have looked
                answered.append(_latency_ms(waiters, store, number, LIMIT_S))
        heard = [ms for ms in told if ms is not None]
        rows.append(
            {
                "waiters": count,
                "told_ms": spread(heard),
                "lost": len(told) - len(heard),
                "answered_ms": spread(ms for ms in answered if ms is not None),
            }
        )
    return rows


def _latency_ms(waiters: Crowd, store: Store, number: int, limit_s: float) -> float | None:
    done = publish(store, spec(number))
    last = waiters.last(layout.ready(spec(number).key), limit_s=limit_s)
    return None if last is None else (last - done) * 1000


def idle(server: LocalStore, count: int) -> dict[str, Any]:
    """CPU of waiting for nothing, in percent of a core."""
    shares = {}
    for waiters in (1, count):
        with crowd(serve_waiters, server.client_config, waiters) as waiting:
            waiting.send(10_000_000 + waiters)
            waiting.connected()
            time.sleep(SETTLE_S)
            before = waiting.cpu_s(), cpu_of(server.pid or 0) or 0.0
            time.sleep(IDLE_S)
            after = waiting.cpu_s(), cpu_of(server.pid or 0) or 0.0
            _latency_ms(waiting, Store(server.config), 10_000_000 + waiters, LIMIT_S)
        shares[waiters] = [(b - a) / IDLE_S * 100 for a, b in zip(before, after, strict=True)]
    return {
        "one_waiter_percent": shares[1][0],
        "waiters": count,
        "each_percent": shares[count][0] / count,
        "server_percent": shares[count][1],
    }


def restart(server: LocalStore, count: int) -> dict[str, Any]:
    """Kill the server, start it again, count what comes."""
    with CountingProxy(server.endpoint) as proxy:
        config = server.client_config._replace(endpoint=proxy.url)
        with crowd(serve_waiters, config, count) as waiters:
            waiters.send(20_000_000)
            waiters.connected()
            time.sleep(2 * SETTLE_S)
            server.kill()
            server.start()
            back = time.monotonic()
            time.sleep(RETURNED_S)
            until = time.monotonic()
            connected = waiters.connections(back)
            if len(connected) < count:
                raise SystemExit(f"{len(connected)} of {count} came back")
            _latency_ms(waiters, Store(server.config), 20_000_000, LIMIT_S)
        asked = [each for each in proxy.asked if back <= each.at < until]
        return {
            "waiters": count,
            "connected_s": max(connected) - back,
            "requests": len(asked),
            "busiest_second": proxy.busiest_second(back, until),
            "per_second": proxy.per_second(back)[: int(RETURNED_S)],
        }


def report(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    parts = []
    if "latency" in results:
        rows = [
            (
                f"{row['waiters']:,}",
                row["told_ms"].shown(1),
                str(row["lost"]),
                row["answered_ms"].shown(1),
            )
            for row in results["latency"]
        ]
        head = ("waiters", "last one told, ms", "events lost", "last one answered, ms")
        parts.append(table(head, rows))
    if "idle" in results:
        found = results["idle"]
        parts.append(
            f"Idle: one waiter {found['one_waiter_percent']:.3f} % of a core; "
            f"{found['waiters']:,} of them {found['each_percent']:.3f} % each, "
            f"and the server {found['server_percent']:.1f} %."
        )
    if "restart" in results:
        found = results["restart"]
        parts.append(
            f"Restart: {found['waiters']:,} waiters listen again after "
            f"{found['connected_s']:.1f} s, at most {found['busiest_second']} requests in any one "
            f"second ({found['requests']:,} in all until everybody has looked)."
        )
    return "\n\n".join(parts)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--waiters", default="1,100" if QUICK else "1,100,1000")
    parser.add_argument("--runs", type=int, default=5 if QUICK else 20)
    parser.add_argument("--only", default="latency,idle,restart")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    counts = [int(count) for count in options.waiters.split(",")]
    measures: dict[str, Callable[[LocalStore], Any]] = {
        "latency": lambda server: latency(server, counts, options.runs),
        "idle": lambda server: idle(server, max(counts)),
        "restart": lambda server: restart(server, max(counts)),
    }
    results = {}
    with own_store() as (_, server):
        for name in options.only.split(","):
            results[name] = measures[name](server)
    print(json.dumps(results, indent=1) if options.json else report(results))


if __name__ == "__main__":
    main()
