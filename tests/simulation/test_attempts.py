"""Single attempts at a key on a simulated bucket: what goes wrong in one, what is left of it."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

import dscache_builder.building
from dscache import layout, manifests, wait
from dscache.manifests import Checkpoint, Failure, Live
from dscache.spec import Spec
from dscache_builder.run import Context, KeyRun, Outcome
from simulation.actors import SHARDS, SPEC, FakeEngine, FakeHandler, HereAndNow
from simulation.store import Bucket, SimulatedStore


class Bench:
    """A bucket, a handler and a builder; every attempt is one of the same process."""

    def __init__(self, folder: Path, spec: Spec = SPEC) -> None:
        self.bucket = Bucket()
        self.requests: list[str] = []
        self.store = SimulatedStore(self.bucket, self.step, lambda: False)
        self.handler = FakeHandler(folder, resolved=spec)
        self.spec = spec
        self.before: Callable[[str], None] = lambda label: None
        self._serial = itertools.count()

    def step(self, label: str) -> None:
        self.requests.append(label)
        self.before(label)

    def ask(self) -> str:
        nonce = f"ask{next(self._serial)}"
        wait.ask(self.store, self.spec, nonce=nonce, client="c")
        return nonce

    def attempt(self, **changes: Any) -> Outcome:
        settings: dict[str, Any] = {
            "store": self.store,
            "engine": FakeEngine(self.handler),
            "uploads": HereAndNow(),
            "owner": "builder:1",
            "builder": "builder",
            "unique": lambda: f"unique{next(self._serial)}",
            "clock": lambda: self.bucket.clock,
            "sleep": self._sleep,
        }
        return KeyRun(Context(**{**settings, **changes}), self.spec.key).run()

    def _sleep(self, seconds: float) -> None:
        self.bucket.clock += seconds

    def checkpoint(self) -> Checkpoint:
        name = layout.claim(self.spec.key)
        return manifests.decode(self.bucket.objects[name].body, Checkpoint, where=name)

    def failure(self, nonce: str) -> Failure:
        name = layout.failed(self.spec.key, nonce)
        return manifests.decode(self.bucket.objects[name].body, Failure, where=name)

    def assert_complete(self) -> None:
        name = layout.ready(self.spec.key)
        live = manifests.decode_ready(self.bucket.objects[name].body, where=name)
        assert isinstance(live, Live)
        body = self.bucket.objects[live.zip_key].body
        assert len(body) == live.zip_size
        assert len(live.shards) == SHARDS
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [member.name for member in live.members]
            for member in live.members:
                at = body[member.offset : member.offset + member.size]
                assert at == archive.read(member.name)


class WhenWaitedFor(Executor):
    """Uploads that end when somebody waits for them, all that have begun at once."""

    def __init__(self) -> None:
        self.begun: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.begun.append((future, lambda: fn(*args, **kwargs)))
        return future

    def end(self, *_: object, **__: object) -> None:
        for future, work in self.begun:
            future.set_result(work())
        self.begun.clear()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def _a_part_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dscache_builder.building, "part_bytes", lambda estimated: 1)


@pytest.mark.usefixtures("_a_part_per_shard")
def test_the_last_part_is_recorded_by_the_seal_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it was sent faster than the one before it, and the builder stops just then."""
    uploads = WhenWaitedFor()
    monkeypatch.setattr(dscache_builder.building, "wait", uploads.end)

    def all_up() -> bool:
        return any(len(upload.parts) == SHARDS + 1 for upload in bench.bucket.uploads.values())

    bench.ask()
    assert bench.attempt(uploads=uploads, stopping=all_up) is Outcome.STOPPED
    assert len(bench.checkpoint().parts) == SHARDS
    assert bench.attempt() is Outcome.ANSWERED
    bench.assert_complete()
