"""Builders that are killed or stopped, on a real store: nothing is lost, nothing is mixed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dscache as package
from dscache.client import Client
from dscache.config import Config
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import Checkpoint
from dscache.spec import load_spec
from dscache.store.s3 import Store
from support.counting import loads
from support.running import Builder, dscache, start_dscache, wait_until, write_spec

NewBuilder = Callable[..., Builder]
SOON_S = 15.0  # until a claim expires that would be held for longer
PART = 6 << 20  # bytes of noise in a sample: more than a part needs, so every shard is a part


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A dataset of six parts."""
    return write_spec(tmp_path / "big.json", "counting", batch_size=1, padding=PART, limit=1000)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A dataset of one part."""
    return write_spec(tmp_path / "small.json", "counting", batch_size=2, padding=9, limit=1000)


def zip_digest(store: Store, key: str) -> str:
    head = store.head(layout.archive(key, 0))
    assert head is not None
    return head.etag


def checkpoint(store: Store, key: str) -> Checkpoint | None:
    found = store.get(layout.claim(key))
    return None if found is None else manifests.decode(found.body, Checkpoint, where=key)


def test_killed_before_every_request_to_the_store(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path
) -> None:
    """A builder that dies before its n-th request, for every n there is; then a whole one."""
    client = Client(client_config)
    options: dict[str, Any] = {"batch_size": 2, "limit": 1000}
    undisturbed: dict[str, bytes] = {}
    killed = 0
    for n in range(3, 60):
        cfg = write_spec(tmp_path / f"{n}.json", "counting", padding=n, **options)
        client.request(cfg)
        builder = new_builder().start("--once", crash_before=n)
        code = builder.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, builder.text()
        killed += 1
        again = new_builder().start("--once")
        assert again.wait() == 0, again.text()
        dataset = client.get(cfg, build=False)
        numbers = sorted(int(example["number"]) for example in dataset)
        assert numbers == list(range(6))
        assert not list(store.entries(layout.REQUESTS))
        undisturbed[dataset.path.name] = (dataset.path / "features.json").read_bytes()
    else:
        raise AssertionError("it never ran to its end")
    assert killed > 15
    assert len(set(undisturbed.values())) == 1


def test_sigkill_in_the_middle_keeps_the_finished_parts(
    new_builder: NewBuilder, client_config: Config, store: Store, big: Path, numbers: Path
) -> None:
    """The same zip as undisturbed, and the recorded shards are not built again."""
    first = new_builder("first").start()
    key = load_spec(big).key
    undisturbed = dscache(client_config, "get", str(big), limit_s=120)
    assert undisturbed.code == 0, undisturbed.err
    digest = zip_digest(store, key)
    planned = [f"{int(e['number']):03d}" for e in package.Dataset(Path(undisturbed.out.strip()))]
    assert first.stop() == 0
    _forget(store, key)
    (numbers / "loads.log").unlink()

    (numbers / f"{planned[4]}.hold").touch()
    builder = new_builder("second", workers=1).start()
    assert dscache(client_config, "request", str(big)).code == 0
    wait_until(lambda: _parts(store, key) == 4, "four parts recorded")
    builder.kill()
    (numbers / f"{planned[4]}.hold").unlink()
    before = loads(numbers)
    started = time.monotonic()
    new_builder("second", workers=1).start()
    again = dscache(client_config, "get", str(big), DSCACHE_HOME=str(client_config.home / "two"))
    assert again.code == 0, again.err
    assert time.monotonic() - started < 30, "its own claim is taken over without waiting"
    rebuilt = loads(numbers)[len(before) :]
    assert sorted(rebuilt) == sorted(f"{name}.txt" for name in planned[4:])
    assert zip_digest(store, key) == digest


def test_sigterm_releases_the_claim_and_keeps_the_parts(
    new_builder: NewBuilder, client_config: Config, store: Store, big: Path, numbers: Path
) -> None:
    for name in range(6):
        if name != 0:
            (numbers / f"{name:03d}.hold").touch()
    (numbers / "000.hold").touch()
    builder = new_builder("first", workers=1).start()
    assert dscache(client_config, "request", str(big)).code == 0
    key = load_spec(big).key
    first = wait_until(lambda: loads(numbers), "first sample")[0]
    (numbers / first).with_suffix(".hold").unlink()
    wait_until(lambda: _parts(store, key) >= 1, "a part recorded")
    started = time.monotonic()
    assert builder.stop() == 0
    assert time.monotonic() - started < 30
    value = checkpoint(store, key)
    assert value is not None
    assert (value.owner, len(value.parts) >= 1, bool(value.upload_id)) == ("", True, True)
    for hold in numbers.glob("*.hold"):
        hold.unlink()
    new_builder("elsewhere").start()
    ran = dscache(client_config, "get", str(big))
    assert ran.code == 0, ran.err
    assert len(list(package.Dataset(Path(ran.out.strip())))) == 6


def test_another_builder_takes_over_an_expired_claim_only(
    new_builder: NewBuilder, client_config: Config, store: Store, small: Path, numbers: Path
) -> None:
    (numbers / "000.hold").touch()
    first = new_builder("first").start()
    assert dscache(client_config, "request", str(small)).code == 0
    key = load_spec(small).key
    wait_until(lambda: loads(numbers), "first builder at work")
    first.kill()
    (numbers / "000.hold").unlink()
    held = checkpoint(store, key)
    assert held is not None
    assert held.owner
    held = msgspec.structs.replace(held, expires_at=store.now() + SOON_S)
    store.put(layout.claim(key), manifests.encode(held))
    second = new_builder("second").start()
    wait_until(lambda: "listening" in second.text(), "second builder up")
    client = start_dscache(client_config, "get", str(small))
    out, err = client.communicate(timeout=100)
    assert client.returncode == 0, err
    assert len(list(package.Dataset(Path(out.strip())))) == 6
    value = checkpoint(store, key)
    assert value is not None
    assert store.now() >= held.expires_at - 1


def test_killed_builders_leave_no_process_behind(
    new_builder: NewBuilder, client_config: Config, small: Path, numbers: Path
) -> None:
    (numbers / "000.hold").touch()
    builder = new_builder(workers=2).start()
    assert dscache(client_config, "request", str(small)).code == 0
    wait_until(lambda: loads(numbers), "workers at work")
    pids = {int(line.split()[1]) for line in (numbers / "loads.log").read_text().splitlines()}
    builder.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "workers gone", 10)


def _parts(store: Store, key: str) -> int:
    value = checkpoint(store, key)
    return len(value.parts) if value else 0


def _forget(store: Store, key: str) -> None:
    """Make the key as if it had never been built (an operator's act, for the test alone)."""
    for prefix in (layout.objects_of(key), layout.claim(key)):
        for entry in store.entries(prefix):
            store.delete(entry.name)
