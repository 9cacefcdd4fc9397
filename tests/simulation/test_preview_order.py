"""When the preview is drawn: first, unless the dataset is built as fast as it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import DscacheError
from dscache.protocol import layout, wait
from dscache.spec import Spec
from dscache_builder.attempt.attempt import SMALL_EXAMPLES, Attempt
from dscache_builder.attempt.context import AttemptContext, Outcome
from dscache_builder.attempt.progress import Reporter
from dscache_builder.engine import Session
from dscache_builder.hosting.messages import PlanSummary
from simulation.actors import SPEC, FakeEngine, FakeHandler, FakeSession, HereAndNow
from simulation.store import Bucket, SimulatedStore


class Drawing(Reporter):
    """Notes what was in the bucket when the preview was drawn."""

    def __init__(self, store: SimulatedStore, drawn: list[tuple[bool, bool]]) -> None:
        self._store, self._drawn = store, drawn

    def preview(self, work: Session) -> None:
        ready = self._store.get(layout.ready(SPEC.key)) is not None
        asked = any(self._store.entries(layout.REQUESTS))
        self._drawn.append((ready, asked))
        work.preview(16, Path("unused"))


@pytest.mark.parametrize(
    ("examples", "ready", "asked"),
    [(SMALL_EXAMPLES + 1, False, True), (SMALL_EXAMPLES, True, False), (0, True, False)],
)
def test_nobody_waits_for_the_picture_of_a_small_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: int, ready: bool, asked: bool
) -> None:
    plan = FakeSession.plan

    def planned(work: FakeSession) -> PlanSummary:
        return replace(plan(work), examples=examples)

    store = SimulatedStore(Bucket(), lambda label: None)
    drawn: list[tuple[bool, bool]] = []
    monkeypatch.setattr(FakeSession, "plan", planned)
    monkeypatch.setattr(FakeSession, "preview", lambda *_: "")
    assert _run(store, tmp_path, drawn) is Outcome.ANSWERED
    assert drawn == [(ready, asked)]
    assert _run(store, tmp_path, drawn) is Outcome.ANSWERED
    assert len(drawn) == 1, "it is there already"


def test_the_handler_is_closed_when_a_late_preview_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> str:
        raise DscacheError("nothing to draw")

    closed: list[bool] = []
    monkeypatch.setattr(FakeSession, "preview", fails)
    store = SimulatedStore(Bucket(), lambda label: None)
    with pytest.raises(DscacheError, match="nothing to draw"):
        _run(store, tmp_path, [], closed)
    assert closed == [True]


def _run(
    store: SimulatedStore,
    folder: Path,
    drawn: list[tuple[bool, bool]],
    closed: list[bool] | None = None,
) -> Outcome:

    class Engine(FakeEngine):
        @contextmanager
        def open(self, spec: Spec, heartbeat: Callable[[], None]) -> Iterator[FakeSession]:
            try:
                with super().open(spec, heartbeat) as work:
                    yield work
            finally:
                if closed is not None:
                    closed.append(True)

    wait.put_request(store, SPEC, nonce=f"n{len(drawn)}", client="c")
    serial = iter(range(1000))
    context = AttemptContext(
        store=store,
        engine=Engine(FakeHandler(folder)),
        uploads=HereAndNow(),
        owner="b:1",
        builder="b",
        unique=lambda: f"u{len(drawn)}-{next(serial)}",
        reporter=lambda _: Drawing(store, drawn),
    )
    return Attempt(context, SPEC.key).run()
