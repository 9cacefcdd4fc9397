"""Who a builder is."""

from __future__ import annotations

from pathlib import Path

from dscache_builder.identity import claimed_state


def test_an_id_that_a_power_cut_left_empty_is_made_anew(tmp_path: Path) -> None:
    """Two builders without an id would take each other's claims."""
    (tmp_path / "builder.id").write_text("")
    with claimed_state(tmp_path) as first:
        assert first
    with claimed_state(tmp_path) as second:
        assert second == first
