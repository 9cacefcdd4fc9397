"""Twenty SIGKILLs at random moments of one build: the same zip as undisturbed, bit for bit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Checkpoint, Live
from dscache.spec import load_spec
from dscache.store.s3 import Store
from support.packages import HandlerPackage
from support.running import Builder, dscache, wait_until, write_spec

NewBuilder = Callable[..., Builder]
KILLS = 20
SEED = 1
LATEST_S = 2.2  # after the builder's start; by then it has planned, built and uploaded some
FREE = 16  # samples that are not held at first: those of the preview
SAMPLES = FREE + KILLS + 2
PADDING = 3 << 20  # bytes of noise: two samples fill a part

SLOW = HandlerPackage(
    name="slow",
    handlers={"slow": "Slow"},
    code="""
    import time

    import msgspec
    from dscache_sdk import DatasetHandler, Sample, Scalar, Tensor, Text


    class Slow(DatasetHandler, name="slow"):
        class Options(msgspec.Struct, kw_only=True):
            batch_size: int = 1
            padding: int = 0

        features = {"id": Text(), "number": Scalar("int64"), "noise": Tensor((None,), "uint8")}

        def samples(self):
            for name in self.raw.files("*.txt"):
                yield Sample(name)

        def load(self, sample):
            path = self.raw / sample.id
            if (path.parent / "slowly").exists():
                time.sleep(0.05)
            while path.with_suffix(".hold").exists():
                time.sleep(0.02)
            return int(path.read_text())

        def example(self, number, sample, rng):
            noise = rng.integers(0, 256, self.options.padding, dtype="uint8")
            return {"id": sample.id, "number": number, "noise": noise}
    """,
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Samples; a file `slowly` beside them slows the handler down, `<sample>.hold` stops it."""
    folder = tmp_path / "slow"
    folder.mkdir()
    for number in range(SAMPLES):
        (folder / f"{number:03d}.txt").write_text(str(number))
    return folder


@pytest.fixture
def make(
    new_builder: NewBuilder,
    wheelhouse: Path,
    raw: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, int], Builder]:
    """Make a builder with so many workers."""
    SLOW.wheel(tmp_path_factory.mktemp("slow"), wheelhouse)
    datasets = {"slow": {"handler": "slow", "raw": str(raw), "source": "slow=={version}"}}
    return lambda name, workers: new_builder(name, datasets=datasets, workers=workers)


def test_twenty_random_kills_leave_no_trace_in_the_zip(
    make: Callable[[str, int], Builder],
    client_config: Config,
    store: Store,
    raw: Path,
    tmp_path: Path,
) -> None:
    """Alternately the builder alone and its whole process tree are killed. Undisturbed it is built
    with one worker and with two: the number of workers leaves no trace either."""
    cfg = write_spec(tmp_path / "slow.json", "slow", batch_size=1, padding=PADDING)
    key = load_spec(cfg).key
    undisturbed = _built_in_peace(make("one", 1), client_config, store, cfg)
    held = [raw / name for name in _samples_in_order(undisturbed)[FREE:]]
    _forget(store, key)
    assert _built_in_peace(make("two", 2), client_config, store, cfg) == undisturbed
    _forget(store, key)

    (raw / "slowly").touch()
    for sample in held:  # released one by one: the build cannot end before the last kill
        sample.with_suffix(".hold").touch()
    assert dscache(client_config, "request", str(cfg)).code == 0
    moments = random.Random(SEED)
    recorded = [0]
    for number in range(KILLS):
        builder = make("killed", 2).start()
        if number % 2 == 1:  # a key that never gets on fails, and rightly
            before = recorded[number - 1]
            wait_until(lambda: _recorded_shards(store, key) > before, "a part more")  # noqa: B023
        _kill_after(builder, moments.uniform(0.0, LATEST_S), everything=number % 2 == 1)
        recorded.append(_recorded_shards(store, key))
        held.pop(0).with_suffix(".hold").unlink()
    assert recorded == sorted(recorded), "what was recorded once is never lost"
    assert len(set(recorded)) > KILLS // 4
    assert store.head(layout.ready(key)) is None

    for sample in held:
        sample.with_suffix(".hold").unlink()
    survivor = make("killed", 2).start("--once")
    assert survivor.wait() == 0, survivor.text()
    assert _zip(store, key) == undisturbed
    assert _live(store, key).repeatable
    assert not list(store.entries(layout.REQUESTS))


def _built_in_peace(builder: Builder, config: Config, store: Store, cfg: Path) -> bytes:
    assert dscache(config, "request", str(cfg)).code == 0
    builder.start("--once")
    assert builder.wait() == 0, builder.text()
    return _zip(store, load_spec(cfg).key)


def _kill_after(builder: Builder, seconds: float, *, everything: bool) -> None:
    """SIGKILL the builder, or it and every process below it, once so much time has passed."""
    process = builder.process
    assert process is not None
    with pytest.raises(subprocess.TimeoutExpired):  # it does not end by itself
        process.wait(seconds)
    below = _processes_below(process.pid)
    for pid in [process.pid, *(below if everything else ())]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)
    wait_until(lambda: not any(map(_alive, below)), "its workers are gone as well", 20)


def _processes_below(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, task.read_text().split())
    return found + [below for child in found for below in _processes_below(child)]


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _recorded_shards(store: Store, key: str) -> int:
    found = store.get(layout.claim(key))
    if found is None:
        return 0
    checkpoint = manifests.decode(found.body, Checkpoint, where=key)
    return sum(len(part.shards) for part in checkpoint.parts)


def _samples_in_order(archive: bytes) -> list[str]:
    """Names of the samples in the order of their records, in which they stand as ids."""
    return sorted(
        (f"{number:03d}.txt" for number in range(SAMPLES)),
        key=lambda name: archive.rfind(name.encode()),
    )


def _zip(store: Store, key: str) -> bytes:
    found = store.get(layout.archive(key, 0), limit_bytes=1 << 30)
    assert found is not None
    return found.body


def _live(store: Store, key: str) -> Live:
    found = store.get(layout.ready(key))
    assert found is not None
    live = manifests.decode_ready(found.body, where=key)
    assert isinstance(live, Live)
    return live


def _forget(store: Store, key: str) -> None:
    """Make the key as if it had never been built (an operator's act, for the test alone)."""
    for prefix in (layout.objects_of(key), layout.claim(key)):
        for entry in store.entries(prefix):
            store.delete(entry.name)
