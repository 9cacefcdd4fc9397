"""The serving process: runs the builder's commands one after the other, in one thread."""

from __future__ import annotations

import os
import pickle
import selectors
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from dscache_sdk.samples import Sample

from .assignment import Assignment
from .channel import LineReader, write_line
from .current_sample import CurrentSample
from .deaths import allowed_bad
from .failures import HostFailure, failure_event
from .loaded_handler import HostSettings, LoadedHandler, enter_work_folder
from .pool import Pool
from .process import limit_memory, note, thread_count

POLL_S = 0.1


def start(
    document: dict[str, Any], commands: LineReader, events: int, current: CurrentSample
) -> None:
    """Serve until the builder closes the pipe. `current` is shared with the guard."""
    settings = msgspec.convert(document, HostSettings)
    enter_work_folder(Path(settings.scratch))
    limit_memory(settings.memory_bytes)
    Service(settings, commands, events, current).run()


def resume(state: str, commands: LineReader, events: int) -> None:
    """Continue in a new process image, with the plan that the previous one saved to a file."""
    with Path(state).open("rb") as file:
        settings, plan, baseline = pickle.load(file)
    service = Service(settings, commands, events, CurrentSample())
    service.resumed = True
    try:
        service.loaded().plan, service.loaded().baseline = plan, baseline
        deque(service.loaded().handler.samples(), maxlen=0)  # for attributes that it sets
        service.answer({"do": "plan"})
    except (Exception, SystemExit) as error:  # noqa: BLE001  # edge to the handler's code
        service.emit(failure_event(error))
    service.run()


class Service:
    """Commands in, events out; owns the handler and the pool of workers."""

    def __init__(
        self, settings: HostSettings, commands: LineReader, events: int, current: CurrentSample
    ) -> None:
        self.settings = settings
        self.resumed = False
        self._commands = commands
        self._events = events
        self._current = current
        self._selector = selectors.DefaultSelector()
        self._selector.register(commands.fd, selectors.EVENT_READ)
        self._loaded: LoadedHandler | None = None
        self._pool: Pool | None = None

    def emit(self, event: dict[str, Any]) -> None:
        """Send an event to the builder."""
        write_line(self._events, event)

    def run(self) -> None:
        """Serve commands, workers' messages and time limits until the builder closes the pipe."""
        for command in self._commands.held():
            self._guarded(command)
        while not self._commands.ended:
            for key, _ in self._selector.select(POLL_S if self._pool else None):
                if key.fd == self._commands.fd:
                    for command in self._commands.read():
                        self._guarded(command)
                elif self._pool is not None:
                    self._pool.receive(key.fd)
            if self._pool is not None:
                self._pool.check(time.monotonic())

    def _guarded(self, command: dict[str, Any]) -> None:
        try:
            self.answer(command)
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  # edge to the handler's code
            self.emit(failure_event(error))

    def answer(self, command: dict[str, Any]) -> None:
        """Run one command."""
        name = command["do"]
        if name == "options":
            self.emit({"event": "options", "options": self.loaded().options()})
        elif name == "describe":
            self.emit({"event": "described", **self.loaded().description()})
        elif name == "plan":
            self._plan()
        elif name == "features":
            self.emit({"event": "features", "features": self.loaded().features()})
        elif name == "raw-changes":
            self.emit({"event": "raw-changes", **self.loaded().raw_changes(command["exact"])})
        elif name == "build":
            self.pool().add(self._assignment(command["index"]))
        elif name == "preview":
            self.pool().add(self._preview(command))
        else:
            raise HostFailure("builder", f"unknown command {name!r}")

    def loaded(self) -> LoadedHandler:
        """The handler, loaded once."""
        if self._loaded is None:
            self._loaded = LoadedHandler(self.settings)
        return self._loaded

    def pool(self) -> Pool:
        """The workers, forked from this process: they have the handler as planning left it."""
        if self._pool is None:
            plan = self.loaded().plan
            samples = len(plan.samples) if plan else 0
            allowed = allowed_bad(self.settings.max_bad_samples, samples)
            self._pool = Pool(self.loaded(), allowed, self.emit, self._selector)
        return self._pool

    def _plan(self) -> None:
        loaded = self.loaded()
        with _watched(loaded, self._current):
            summary = loaded.summary()
        if loaded.plan is not None and thread_count() > 1 and not self.resumed:
            self._restart()
        self.emit({"event": "planned", **summary})

    def _restart(self) -> None:
        """Replace this process image: threads that planning started would not survive a fork."""
        note(f"planning left {thread_count()} threads: loading the handler again before forking")
        state = Path(self.settings.scratch) / "host-state"
        with state.open("wb") as file:
            pickle.dump((self.settings, self.loaded().plan, self.loaded().baseline), file)
        descriptors = [self._commands.fd, self._events]
        for fd in descriptors:
            os.set_inheritable(fd, True)
        script = str(Path(__file__).resolve().parent.parent / "host_main.py")
        arguments = ["-P", "-s", script, *map(str, descriptors), str(state)]
        os.execv(sys.executable, [sys.executable, *arguments])

    def _assignment(self, index: int) -> Assignment:
        if self.loaded().plain:
            return Assignment({"do": "plain"}, "as_tfrecord()", tries=1)
        shard = self._planned().shards[index]
        return Assignment(
            {"do": "shard", "index": index}, shard.name, len(shard.samples), shard.examples
        )

    def _preview(self, command: dict[str, Any]) -> Assignment:
        samples = 0
        if not self.loaded().plain:
            samples = command["samples"] or min(len(self._planned().samples), command["examples"])
        mixed = command["samples"] is None
        return Assignment({**command, "samples": samples, "mixed": mixed}, "the preview", samples)

    def _planned(self) -> Any:
        if self.loaded().plan is None:
            self.loaded().summary()
        return self.loaded().plan


@contextmanager
def _watched(loaded: LoadedHandler, current: CurrentSample) -> Iterator[None]:
    """While planning, show the guard the current sample; refuse samples that killed a host."""
    if loaded.plain:
        yield
        return
    handler: Any = loaded.handler
    load, example = handler.load, handler.example

    def watched_load(sample: Sample) -> Any:
        if sample.id in loaded.settings.avoid:
            raise HostFailure("worker-killed", "this sample has killed the process before")
        current.begin(sample.id, time.monotonic())
        try:
            return load(sample)
        except Exception:
            current.rest()
            raise

    def watched_example(*arguments: Any, **named: Any) -> Any:
        try:
            return example(*arguments, **named)
        finally:
            current.rest()

    handler.load, handler.example = watched_load, watched_example
    try:
        yield
    finally:
        del handler.load, handler.example
        current.rest()
