"""`dscache logs -f` on a running build."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dscache.config import Config
from dscache.protocol import layout
from dscache.protocol.buildlog import text_of
from dscache.spec import load_spec
from dscache.store.s3 import Store
from support.counting import loads
from support.running import Builder, dscache, start_dscache, wait_until, write_spec
from support.troubles import write_samples

NewBuilder = Callable[..., Builder]


def test_logs_follow_a_build_to_its_end(
    new_builder: NewBuilder, client_config: Config, store: Store, numbers: Path, tmp_path: Path
) -> None:
    cfg = write_spec(tmp_path / "cfg.json", "counting", batch_size=1, padding=3, limit=1000)
    key = load_spec(cfg).key
    (numbers / "003.hold").touch()
    new_builder().start()
    assert dscache(client_config, "request", str(cfg)).code == 0
    wait_until(lambda: loads(numbers), "the build has begun")
    follower = start_dscache(client_config, "logs", "-f", str(cfg))
    wait_until(lambda: "building" in _log(store, key), "the log goes up while it is built")
    assert follower.poll() is None
    (numbers / "003.hold").unlink()
    out, err = follower.communicate(timeout=60)
    assert follower.returncode == 0, err
    phases = [line.split(" ", 1)[1] for line in out.splitlines() if line[8:10] == "Z "]
    assert phases[:3] == ["environment", "planning", "building"]
    assert phases[-1].startswith("ended: 6 of 6 shards")
    assert len(phases) == len(set(phases)), "nothing is printed twice"
    again = dscache(client_config, "logs", str(cfg))
    assert again.out == out
    document = json.loads(dscache(client_config, "logs", "--json", str(cfg)).out)
    assert document == {"key": key, "state": "ready", "log": out, "failure": None}
    assert dscache(client_config, "logs", "--json", "-f", str(cfg)).code == 2


def test_logs_follow_tells_why_a_build_failed(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path
) -> None:
    raw = write_samples(tmp_path / "raw", {"a.txt": "chatter", "b.txt": "raises"})
    datasets = {
        "troubles": {"handler": "troubles", "raw": str(raw), "source": "troubles=={version}"}
    }
    cfg = write_spec(tmp_path / "cfg.json", "troubles", size=4, batch_size=1)
    assert dscache(client_config, "request", str(cfg)).code == 0
    follower = start_dscache(client_config, "logs", "--follow", str(cfg))
    assert follower.stderr is not None
    assert "waiting for a builder" in follower.stderr.readline()
    new_builder(datasets=datasets).start()
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert "a word on standard output" in out
    assert "nothing good in b.txt" in out.splitlines()[-1]
    assert out.splitlines()[-1].startswith("handler: ")


def _log(store: Store, key: str) -> str:
    found = store.get(layout.log(key))
    return text_of(found.body) if found else ""
