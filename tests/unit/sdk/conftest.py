"""Raw data of the tests' handler, and handlers of a single file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.texts import Texts


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Raw data of `Texts`: twenty files."""
    folder = tmp_path / "raw"
    (folder / "sub").mkdir(parents=True)
    for number in range(20):
        (folder / "sub" / f"{number:02d}.txt").write_text(f"text {number}")
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Callable[..., Texts]:
    """Make a raw folder with one file of this content; return its handler."""

    def make(content: str, **config: Any) -> Texts:
        folder = tmp_path / "one"
        folder.mkdir(exist_ok=True)
        (folder / "a.txt").write_text(content)
        return Texts(config, str(folder))

    return make
