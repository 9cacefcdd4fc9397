"""Who is built first when several keys wait for one builder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from dscache.config import Config
from dscache.spec import load_spec
from support.running import Builder, dscache, wait_until, write_spec


def test_highest_priority_then_oldest_one_at_a_time(
    new_builder: Callable[..., Builder], client_config: Config, tmp_path: Path, numbers: Path
) -> None:
    (numbers / "000.hold").touch()
    builder = new_builder(max_builds=1).start()
    keys = {}
    for padding, priority in ((1, 5), (2, 1), (3, 5), (4, 9)):
        cfg = write_spec(
            tmp_path / f"{padding}.json", "counting", batch_size=1, padding=padding, limit=1000
        )
        ran = dscache(client_config, "request", "--priority", str(priority), str(cfg))
        assert ran.code == 0, ran.err
        keys[load_spec(cfg).key] = padding
        if padding == 1:
            wait_until(lambda: (numbers / "loads.log").exists(), "the first is being built")
    (numbers / "000.hold").unlink()

    def ready() -> list[str]:
        return re.findall(r"(\S+): ready", builder.text())

    wait_until(lambda: len(ready()) == 4, "all four")
    assert [keys[key] for key in ready()] == [1, 4, 3, 2]
    begun = re.findall(r"(\S+): (environment|ready)", builder.text())
    assert [what for _, what in begun] == ["environment", "ready"] * 4, "never two at once"


def test_two_at_once_when_it_may(
    new_builder: Callable[..., Builder], client_config: Config, tmp_path: Path, numbers: Path
) -> None:
    (numbers / "000.hold").touch()
    new_builder(max_builds=2, workers=1).start()
    configs = [write_spec(tmp_path / f"{n}.json", "counting", padding=n) for n in (1, 2)]
    for cfg in configs:
        assert dscache(client_config, "request", str(cfg)).code == 0

    def building() -> int:
        waiting = json.loads(dscache(client_config, "ls", "--json").out)["waiting"]
        return sum(found["state"] == "building" for found in waiting)

    wait_until(lambda: building() == 2, "both are being built")
    (numbers / "000.hold").unlink()
    for cfg in configs:
        assert dscache(client_config, "wait", str(cfg)).code == 0
