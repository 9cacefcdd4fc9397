"""Opening a spec: what is wrong on the builder's side is an answer; it is not tried for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import SpecError
from dscache.protocol import layout
from dscache_builder.config import BuilderConfig, DatasetSource
from dscache_builder.failure import HandlerFailure
from dscache_builder.handler_engine import HandlerEngine
from simulation.actors import SPEC
from simulation.store import Bucket, SimulatedStore

LOCK = layout.lock(SPEC.dataset_name, SPEC.handler_version)


class Refusing:
    """Environments that cannot be made."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def resolve(self, *_: object, heartbeat: Callable[[], None]) -> Any:
        raise self.error


def failure_of(error: Exception, store: SimulatedStore, tmp_path: Path) -> HandlerFailure:
    sources = {"photos": DatasetSource("photos", tmp_path, "photos=={version}")}
    config = BuilderConfig(state=tmp_path, datasets=sources)
    environments: Any = Refusing(error)
    engine = HandlerEngine(config, store, environments)
    with pytest.raises(HandlerFailure) as caught, engine.open(SPEC, lambda: None):
        raise AssertionError("it cannot be opened")
    return caught.value


@pytest.fixture
def store() -> SimulatedStore:
    return SimulatedStore(Bucket(), lambda label: None)


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (OSError(28, "No space left on device"), "disk", True),
        (SpecError("dataset_config.size: inf is not a JSON number"), "options", False),
    ],
)
def test_errors_of_the_builder_are_answers(
    error: Exception, kind: str, transient: bool, store: SimulatedStore, tmp_path: Path
) -> None:
    failure = failure_of(error, store, tmp_path)
    assert failure.kind == kind
    assert failure.transient is transient
    assert str(error) in failure.message


def test_a_lock_that_cannot_be_read_is_an_answer(store: SimulatedStore, tmp_path: Path) -> None:
    store.put(LOCK, b"damaged")
    failure = failure_of(AssertionError("not resolved anew"), store, tmp_path)
    assert failure.kind == "environment"
    assert LOCK in failure.message
