"""The worker processes: forked from the serving process; each writes one shard at a time."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from .assignment import Assignment
from .channel import LineReader, write_line
from .current_sample import CurrentSample
from .deaths import after_death, describe_death, fewer_workers, too_many_bad, was_killed
from .loaded_handler import LoadedHandler
from .process import die_with_parent, kill, note, reap
from .shard_worker import ShardWorker

PROGRESS_S = 0.25


class Worker:
    """The serving process's view of one worker process."""

    def __init__(self, pid: int, commands: int, events: int, current: CurrentSample) -> None:
        self.pid = pid
        self.commands = commands
        self.events = LineReader(events)
        self.current = current
        self.assignment: Assignment | None = None
        self.overdue = False
        self.retired = False

    def close(self) -> None:
        """Release the descriptors and memory of a worker that has ended."""
        os.close(self.commands)
        os.close(self.events.fd)
        self.current.close()


class Pool:
    """Hands assignments to workers, forks workers as needed, and replaces dead ones."""

    def __init__(
        self,
        loaded: LoadedHandler,
        allowed_bad: int,
        emit: Callable[[dict[str, Any]], None],
        selector: selectors.BaseSelector,
    ) -> None:
        self._loaded = loaded
        self._allowed_bad = allowed_bad
        self._emit = emit
        self._selector = selector
        self._workers: dict[int, Worker] = {}
        self._queued: deque[Assignment] = deque()
        self._bad: dict[str, set[str]] = {}
        self._limit = loaded.settings.workers
        self._finished_examples = loaded.settings.examples_done
        self._reported = (self._finished_examples, 0.0)
        self._failed = False

    def add(self, assignment: Assignment) -> None:
        """Queue an assignment; it starts when a worker is free."""
        self._queued.append(assignment)
        self._start_queued()

    def receive(self, fd: int) -> None:
        """Process the messages of the worker with this descriptor, or its death."""
        worker = self._workers[fd]
        for message in worker.events.read():
            self._take(worker, message)
        if worker.events.ended:
            self._bury(worker)
        self._start_queued()

    def check(self, now: float) -> None:
        """Kill workers whose sample exceeds the time limit, and report progress."""
        limit_s = self._loaded.settings.sample_seconds
        for worker in self._workers.values():
            if not worker.overdue and worker.current.read().overdue(now, limit_s):
                worker.overdue = True
                kill(worker.pid)
        self._report_progress(now)

    def _start_queued(self) -> None:
        self._retire_surplus()
        while self._queued and not self._failed:
            worker = self._free_worker()
            if worker is None:
                return
            self._give(worker, self._queued.popleft())

    def _retire_surplus(self) -> None:
        """End idle workers above the limit."""
        staying = [worker for worker in self._workers.values() if not worker.retired]
        idle = [worker for worker in staying if worker.assignment is None]
        for worker in idle[: max(0, len(staying) - self._limit)]:
            worker.retired = True
            kill(worker.pid)

    def _free_worker(self) -> Worker | None:
        for worker in self._workers.values():
            if worker.assignment is None and not worker.retired:
                return worker
        if len(self._workers) < self._limit:
            return self._fork()
        return None

    def _give(self, worker: Worker, assignment: Assignment) -> None:
        assignment.begin()
        worker.assignment = assignment
        # The end of its events shows that a worker died idle; the assignment is queued again.
        with contextlib.suppress(BrokenPipeError):
            write_line(worker.commands, assignment.message)

    def _fork(self) -> Worker:
        command_read, command_write = os.pipe()
        event_read, event_write = os.pipe()
        current = CurrentSample()
        current.rest()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(command_write)
            os.close(event_read)
            self._be_worker(parent, command_read, event_write, current)
        os.close(command_read)
        os.close(event_write)
        worker = Worker(pid, command_write, event_read, current)
        self._workers[event_read] = worker
        self._selector.register(event_read, selectors.EVENT_READ)
        return worker

    def _be_worker(
        self, parent: int, commands: int, events: int, current: CurrentSample
    ) -> NoReturn:
        try:
            die_with_parent(parent)
            self._selector.close()
            for worker in self._workers.values():
                worker.close()
            ShardWorker(self._loaded, commands, events, current).run()
        finally:
            os._exit(1)

    def _take(self, worker: Worker, message: dict[str, Any]) -> None:
        assignment = worker.assignment
        if assignment is None or self._failed:
            return
        event = message["event"]
        if event == "bad":
            entry = {name: message[name] for name in ("sample", "error", "traceback")}
            assignment.bad[message["sample"]] = entry
            self._count_bad(assignment, "handler", message)
        elif event == "done":
            self._finished_examples += assignment.examples
            worker.assignment = None
            self._emit(message)
        elif event == "failure":
            worker.assignment = None
            self._fail(assignment, message)
        else:
            self._emit({**message, "bad": assignment.bad_samples})

    def _count_bad(self, assignment: Assignment, kind: str, message: dict[str, Any]) -> None:
        if assignment.command["do"] == "preview":
            return
        self._bad[assignment.name] = {*assignment.bad, *assignment.left_out}
        bad = self._loaded.settings.bad_samples + sum(map(len, self._bad.values()))
        if bad > self._allowed_bad:
            self._fail(
                assignment,
                {
                    "event": "failure",
                    "kind": kind,
                    "message": too_many_bad(message["error"], bad, self._allowed_bad),
                    "sample": message["sample"],
                    "traceback": message["traceback"],
                },
            )

    def _bury(self, worker: Worker) -> None:
        """A worker's events ended: determine how it died, and what to do with its shard."""
        kill(worker.pid)  # it may still be alive with its descriptors closed
        ending = reap(worker.pid)
        status = worker.current.read()
        self._selector.unregister(worker.events.fd)
        del self._workers[worker.events.fd]
        worker.close()
        assignment = worker.assignment
        if assignment is None or ending is None or self._failed:
            return
        sample = status.sample if status.started_at else ""
        settings = self._loaded.settings
        kind, message = describe_death(
            ending, sample, worker.overdue, settings.sample_seconds, settings.memory_bytes
        )
        note(f"{assignment.name}: {message}")
        killed = was_killed(ending, worker.overdue)
        if killed and self._workers:
            self._go_on_with_fewer(message)
            self._queued.appendleft(assignment)
            return
        self._after_death(assignment, sample, kind, message, killed)

    def _go_on_with_fewer(self, message: str) -> None:
        """Memory may be short, and the sample of the worker that the kernel chose blameless.

        A kill counts against a sample only if its worker was the only one.
        """
        self._limit = fewer_workers(self._limit, running=len(self._workers) + 1)
        text = f"{message}; going on with fewer workers: {self._limit}"
        note(text)
        self._emit({"event": "workers", "workers": self._limit, "message": text})

    def _after_death(
        self, assignment: Assignment, sample: str, kind: str, message: str, killed: bool
    ) -> None:
        assignment.deaths.append(sample)
        decision = after_death(assignment.deaths, assignment.tries)
        if decision == "give-up":
            failure = {"event": "failure", "kind": kind, "message": message, "sample": sample}
            self._fail(assignment, {**failure, "killed": killed})
            return
        if decision == "leave-out":
            assignment.leave_out(sample, message)
            self._count_bad(assignment, kind, assignment.left_out[sample])
        self._queued.appendleft(assignment)

    def _fail(self, assignment: Assignment, event: dict[str, Any]) -> None:
        """Report the failure and stop; a preview is a hint, so the build continues without it."""
        self._failed = assignment.command["do"] != "preview"
        self._emit(event)

    def _report_progress(self, now: float) -> None:
        running = sum(
            worker.assignment.examples_done(worker.current.read().begun)
            for worker in self._workers.values()
            if worker.assignment is not None
        )
        done, (reported, reported_at) = self._finished_examples + running, self._reported
        if done > reported and now - reported_at >= PROGRESS_S and not self._failed:
            self._reported = (done, now)
            self._emit({"event": "advanced", "done": done})
