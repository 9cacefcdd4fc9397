"""Measure waiting: when 1, 100 and 1,000 waiters are notified, their cost, and a restart.

    python -m benchmarks.notify [--waiters 1,100,1000] [--runs 20] [--only latency,idle,restart]
                                [--json]

Uses its own store. Waiters are spread over 8 processes; each has its own connection, as if it were
a separate process.

latency   from the end of the PUT of a ready marker until the last waiter's listener has received
          the event (`told`), and until the last waiter has also read the marker (`answered`:
          `dscache.protocol.wait`, one more request each). `lost`: runs in which a listener received
          no event within 5 s
idle      CPU share of one waiter (a process with one `wait`), and of the store's server for all
          waiters
restart   the server is killed and started again: seconds until the last waiter listens again, and
          the maximum number of requests in one second until all have polled, counted by a proxy
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
from support.datasets import MEMBER

PROCESSES = 8
IDLE_S = 5.0 if QUICK else 20.0
SETTLE_S = 1.0 if QUICK else 3.0
RETURNED_S = 15.0 if QUICK else 55.0  # by then all have connected and polled
LIMIT_S = 120.0
EVENT_S = 5.0  # a later event counts as dropped, which the server may do
CONNECTED = "connected"


def spec(number: int) -> Spec:
    """Return a spec that no other run uses."""
    return Spec.of("photos", "1.0.0", {"number": number})


def publish(store: Store, spec: Spec) -> float:
    """PUT the ready marker; return the time at its end (time.monotonic, which processes share)."""
    name = layout.archive(spec.key, 0)
    live = Live(
        spec=spec, generation=0, zip_key=name, zip_etag="e", zip_size=1, seal="", members=[MEMBER]
    )
    store.put(layout.ready(spec.key), manifests.encode(live))
    return time.monotonic()


# -- in the processes of the waiters


def serve_listeners(pipe: Connection, config: Config, count: int) -> None:
    """Run `count` listeners; for each event, send the time at which the last one received it."""
    lock = threading.Lock()
    connected, received = [0], dict[str, int]()

    def deliver(signal: Signal) -> None:
        now = time.monotonic()
        with lock:
            if isinstance(signal, Connected):
                connected[0] += 1
                if connected[0] == count:
                    pipe.send((CONNECTED, now))
            elif isinstance(signal, Created):
                received[signal.name] = received.get(signal.name, 0) + 1
                if received[signal.name] == count:
                    pipe.send((signal.name, now))

    listeners = [Listener(config, "datasets/photos_1.0.0_", deliver) for _ in range(count)]
    for listener in listeners:
        listener.start()
    pipe.recv()
    os._exit(0)  # stopping a thousand threads one by one takes too long


def serve_waiters(pipe: Connection, config: Config, count: int) -> None:
    """Run `count` waits for each dataset number received; send the time at which the last ended."""
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
            wait(store, out, lambda _: out, WaitOptions(signals))
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
            parent_end, child_end = spawn.Pipe()
            share = count // self.processes + (index < count % self.processes)
            process = spawn.Process(target=serve, args=(child_end, config, share), daemon=True)
            process.start()
            self.pipes.append(parent_end)
            self.pids.append(process.pid or 0)

    def send(self, message: Any) -> None:
        """Send a message to every process."""
        for pipe in self.pipes:
            pipe.send(message)

    def last(self, event: str, *, limit_s: float = LIMIT_S) -> float | None:
        """Return the time at which the last process reported `event`; None after `limit_s`."""
        deadline = time.monotonic() + limit_s
        times = []
        for pipe in self.pipes:
            message = ("", 0.0)
            while message[0] != event:
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
        """Return the times since `since` at which waiters connected, from the messages so far."""
        messages = []
        for pipe in self.pipes:
            while pipe.poll():
                messages.append(pipe.recv())
        return [at for event, at in messages if event == CONNECTED and at >= since]

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes so far."""
        return sum(cpu_of(pid) or 0.0 for pid in self.pids)


@contextmanager
def crowd(serve: Callable[..., None], config: Config, count: int) -> Iterator[Crowd]:
    """Yield waiters, which are ended afterwards."""
    waiters = Crowd(serve, config, count)
    yield waiters
    waiters.send(None)
    time.sleep(SETTLE_S)  # until the server notices that they have ended


# -- what is measured


def latency(server: LocalStore, counts: list[int], runs: int) -> list[dict[str, Any]]:
    """Measure milliseconds until the last waiter is notified, and until it has its answer."""
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
                time.sleep(SETTLE_S)  # until all have polled
                answered.append(_latency_ms(waiters, store, number, LIMIT_S))
        received = [ms for ms in told if ms is not None]
        rows.append(
            {
                "waiters": count,
                "told_ms": spread(received),
                "lost": len(told) - len(received),
                "answered_ms": spread(ms for ms in answered if ms is not None),
            }
        )
    return rows


def _latency_ms(waiters: Crowd, store: Store, number: int, limit_s: float) -> float | None:
    done = publish(store, spec(number))
    last = waiters.last(layout.ready(spec(number).key), limit_s=limit_s)
    return None if last is None else (last - done) * 1000


def idle(server: LocalStore, count: int) -> dict[str, Any]:
    """Measure the CPU share of idle waiters, in percent of a core."""
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
    """Kill the server, start it again, and count the requests."""
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
                raise SystemExit(f"only {len(connected)} of {count} reconnected")
            _latency_ms(waiters, Store(server.config), 20_000_000, LIMIT_S)
        requests = [each for each in proxy.asked if back <= each.at < until]
        return {
            "waiters": count,
            "connected_s": max(connected) - back,
            "requests": len(requests),
            "busiest_second": proxy.busiest_second(back, until),
            "per_second": proxy.per_second(back)[: int(RETURNED_S)],
        }


def report(results: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
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
        figures = results["idle"]
        parts.append(
            f"Idle: one waiter {figures['one_waiter_percent']:.3f} % of a core; "
            f"{figures['waiters']:,} of them {figures['each_percent']:.3f} % each, "
            f"and the server {figures['server_percent']:.1f} %."
        )
    if "restart" in results:
        figures = results["restart"]
        parts.append(
            f"Restart: {figures['waiters']:,} waiters listen again after "
            f"{figures['connected_s']:.1f} s, at most {figures['busiest_second']} requests in any "
            f"one second ({figures['requests']:,} in all until everyone has polled)."
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
