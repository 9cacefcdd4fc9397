"""`dscache cache …` with a real store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from dscache import cli
from dscache.cache.cache import Cache
from dscache.config import Config
from dscache.protocol import layout
from dscache.store.s3 import Store
from support.datasets import publish, random_files, url_of

pytestmark = pytest.mark.store

ASKED = "photos_1.0.0_" + "a" * 32


@pytest.fixture
def run(
    client_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `dscache cache …` with the client's configuration: exit code, output, messages."""
    for name in ("endpoint", "bucket", "access_key", "secret_key", "home"):
        monkeypatch.setenv(f"DSCACHE_{name.upper()}", str(getattr(client_config, name)))
    monkeypatch.setenv("DSCACHE_CONFIG", str(client_config.home / "none.toml"))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dscache", "cache", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return code, output.out, output.err

    return run


Run = Callable[..., tuple[int, str, str]]


class TestCommands:
    def test_ls(self, store: Store, client_store: Store, cache: Cache, run: Run) -> None:
        code, output, messages = run("ls")
        assert (code, output) == (0, "") and "no datasets" in messages
        live = publish(store, random_files([1 << 20]))
        cache.fetch(live, url_of(client_store, live), asked=ASKED)
        cache.pin(ASKED)
        code, output, messages = run("ls")
        assert code == 0 and output.split() == [
            live.spec.key, "1.0", "MiB", "just", "now", "pinned",
        ]  # fmt: skip
        assert "1 dataset, 1.0 MiB" in messages
        code, output, _ = run("ls", "--json")
        (listed,) = json.loads(output)
        assert listed["key"] == live.spec.key and listed["aliases"] == [ASKED]
        assert listed["pinned"] is True and listed["in_use"] is False

    def test_verify_and_repair(
        self, store: Store, client_store: Store, cache: Cache, run: Run
    ) -> None:
        live = publish(store, random_files([1000, 1000]))
        path = cache.fetch(live, url_of(client_store, live))
        key = live.spec.key
        assert run("verify")[:2] == (0, f"{key}: ok\n")
        name = live.members[1].name
        (path / name).write_bytes(b"short")
        code, output, messages = run("verify", key)
        assert code == 8
        assert output == f"{key}: damaged\n  {name}: 5 bytes instead of 1000\n"
        assert "--repair" in messages
        code, output, _ = run("verify", key, "--json")
        problem = {"name": name, "problem": "5 bytes instead of 1000"}
        assert code == 8
        assert json.loads(output) == {
            "datasets": {key: [problem]}, "repaired": False, "refused": {},
        }  # fmt: skip
        code, output, _ = run("verify", key, "--repair")
        assert code == 0 and output.endswith("(repaired)\n")
        assert run("verify", key)[0] == 0

    def test_verify_goes_on_after_a_damaged_manifest(
        self, store: Store, client_store: Store, cache: Cache, run: Run
    ) -> None:
        lives = [publish(store, random_files([1000]), config={"n": n}) for n in range(3)]
        keys = [live.spec.key for live in lives]
        paths = [cache.fetch(live, url_of(client_store, live)) for live in lives]
        (paths[0] / "manifest.json").write_bytes(b"")
        (paths[1] / "manifest.json").unlink()
        code, output, _ = run("verify", *keys)
        assert code == 8
        assert output == (
            f"{keys[0]}: damaged\n  manifest.json: damaged\n"
            f"{keys[1]}: damaged\n  manifest.json: missing\n{keys[2]}: ok\n"
        )
        assert "damaged" in run("ls")[1]
        code, output, _ = run("verify", "--repair")
        assert code == 0 and output.count("(repaired)") == 2
        assert run("verify")[0] == 0

    def test_repair_goes_on_after_a_retired_dataset(
        self, store: Store, client_store: Store, cache: Cache, run: Run
    ) -> None:
        lives = [publish(store, random_files([1000]), config={"n": n}) for n in range(3)]
        gone, lost, good = keys = [live.spec.key for live in lives]
        for live in lives:
            path = cache.fetch(live, url_of(client_store, live))
            (path / live.members[0].name).unlink()
        (cache.path / "datasets" / lost / "manifest.json").unlink()
        store.delete(lives[0].zip_key)
        store.delete(layout.ready(lost))
        code, output, messages = run("verify", "--repair", *keys, "--json")
        refused = json.loads(output)["refused"]
        assert code == 8 and list(refused) == [gone, lost]
        assert all(f"`dscache cache rm {key}`, then get it" in refused[key] for key in refused)
        code, output, messages = run("verify", "--repair", *keys)
        assert code == 8 and f"{good}: ok" in output and f"cache rm {gone}`" in messages
        assert run("rm", gone, lost)[0] == 0

    def test_pin_rm_unpin(self, store: Store, client_store: Store, cache: Cache, run: Run) -> None:
        live = publish(store, random_files([1000]))
        cache.fetch(live, url_of(client_store, live))
        key = live.spec.key
        assert run("pin", key, "--json")[:2] == (0, json.dumps({"pinned": [key]}, indent=2) + "\n")
        code, _, messages = run("rm", key)
        assert code == 2 and "is pinned" in messages
        assert run("unpin", key)[0] == 0
        code, output, _ = run("rm", key, ASKED, "--json")
        assert code == 5 and list(json.loads(output)["removed"]) == [key]
        code, _, messages = run("rm", key)
        assert code == 5 and "cache ls" in messages

    def test_prune(self, store: Store, client_store: Store, cache: Cache, run: Run) -> None:
        live = publish(store, random_files([1000]))
        cache.fetch(live, url_of(client_store, live))
        code, _, messages = run("prune")
        assert code == 2 and "--max-size" in messages
        code, _, messages = run("prune", "--max-size", "many")
        assert code == 2 and "not a size" in messages
        code, output, _ = run("prune", "--max-size", "0")
        assert (code, output) == (0, "")  # handed out today
        code, output, _ = run("prune", "--keep-days", "0", "--json")
        assert json.loads(output) == {"removed": [], "freed_bytes": 0, "dry_run": False}
        assert cache.find(live.spec.key) is not None
