"""Stories hold for the real code, and tell of every mutant, within the same seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.mutants import MUTANTS, Mutant
from simulation.stories import anything, crowded, slow
from simulation.world import RuleBroken

SEEDS = 300
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.fixture(autouse=True)
def _crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    crowded(monkeypatch)


def test_the_rules_hold(tmp_path: Path) -> None:
    for seed in range(SEEDS):
        anything(seed, tmp_path)
    slow(0, tmp_path)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_every_mutant_is_told_of(
    mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.plant(monkeypatch)
    with pytest.raises(RuleBroken):
        for seed in range(SEEDS):
            mutant.story(seed, tmp_path)
