"""A dataset that kills its builder fails, and harms none that is built beside it."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from pathlib import Path

import pytest

import dscache
from dscache.config import Config
from dscache.protocol import layout
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache_builder.attempt.attempt import MAX_TAKEOVERS
from support.running import Builder, wait_until

pytestmark = [pytest.mark.store, pytest.mark.system]

UNIT = Path(__file__).parents[2] / "infra" / "systemd" / "dscache-builder.service"


def starts_that_systemd_grants() -> int:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT)
    return int(unit["Unit"]["StartLimitBurst"])


@pytest.mark.parametrize("deadly", [1, 2])
def test_it_fails_before_systemd_gives_up_and_the_others_are_built(
    deadly: int,
    new_builder: Callable[..., Builder],
    client_config: Config,
    store: Store,
    numbers: Path,
) -> None:
    held = numbers / "000.hold"  # the good one is being built when the builder dies
    held.touch()
    datasets = {
        name: {"handler": name, "raw": str(numbers), "source": f"{name}=={{version}}"}
        for name in ("deadly", "counting")
    }
    client = dscache.Client(client_config)
    killers = [Spec.of("deadly", "1.0.0", {"variant": number}) for number in range(deadly)]
    good = Spec.of("counting", "1.0.0", {})
    topics = [client.request(spec) for spec in (*killers, good)]
    builder = new_builder(datasets=datasets, max_builds=3, workers=1)

    def all_failed() -> bool:
        return all(list(store.entries(layout.failures_of(spec.key))) for spec in killers)

    starts = 0
    while not all_failed():
        starts += 1
        assert starts <= starts_that_systemd_grants()
        assert starts <= (MAX_TAKEOVERS + 1) * deadly + 1
        builder.start()
        wait_until(
            lambda: (builder.process and builder.process.poll() is not None) or all_failed(),
            "the builder is killed, or says that these fail",
        )
        held.unlink(missing_ok=True)
    for topic in topics[:-1]:
        with pytest.raises(dscache.BuildFailed, match="builders in a row died") as failed:
            client.wait(topic, timeout_s=30.0)
        assert failed.value.kind == "builder"
    assert client.wait(topics[-1], timeout_s=60.0)
    assert builder.stop() == 0
