"""docs/handlers.md says what is there, and its example runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import sklearn

from dataset_handlers import Coco, Composite, Photos, Saliency
from dscache_sdk import DatasetHandler, OptionsError
from dscache_sdk.plain import load_handler
from support.docblocks import blocks_of
from support.docruns import compare

PAGE = (Path(__file__).parents[3] / "docs" / "handlers.md").read_text("utf-8")
BLOCKS = blocks_of("docs/handlers.md", PAGE)

HANDLERS = (Coco, Composite, Photos, Saliency)
OPTIONS = [(handler, option) for handler in HANDLERS for option in handler.config_options()]


def section(heading: str) -> str:
    """The text between a heading and the next one."""
    start = PAGE.index(f"## {heading}\n")
    return PAGE[start : PAGE.find("\n## ", start)]


@pytest.mark.parametrize(
    ("handler", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value)
)
def test_every_option_is_on_the_page(handler: type[DatasetHandler], option: str) -> None:
    text = section("Included handlers") + section(f"The `{handler.name}` handler")
    assert re.search(rf"^\| .*`{option}`", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("handler", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value)
)
def test_every_option_says_what_it_is(handler: type[DatasetHandler], option: str) -> None:
    described = handler.config_options()[option]
    assert {"type", "default", "limits", "help", "neutral"} == described.keys()
    assert described["type"]
    assert len(described["help"]) > 10
    assert described["help"].endswith(".")


def test_every_handler_is_installed_under_its_name() -> None:
    for handler in HANDLERS:
        assert load_handler(handler.name) is handler


def run(code: str, scope: dict[str, Any]) -> None:
    """As in a file of its own: this one's `from __future__` does not count there."""
    exec(compile(code, "docs/handlers.md", "exec", dont_inherit=True), scope)


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"
    (tmp_path / "raw" / "pictures").mkdir(parents=True)
    shutil.copy(source, tmp_path / "raw" / "pictures")
    monkeypatch.chdir(tmp_path)
    write, attempt, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict[str, Any] = {}
    run(write + attempt, scope)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert scope["examples"][0]["image"].shape == (200, 200, 3)


WRONG = ({"image_sise": [96, 96]}, {"image_size": [1, "x"]}, {"variations_per_sample": 0})


def test_refused_options_are_told_as_the_page_shows() -> None:
    scope: dict[str, Any] = {}
    run(next(block.code for block in BLOCKS if block.language == "python"), scope)
    (shown,) = [block for block in BLOCKS if block.code.startswith("option ")]
    messages = []
    for config in WRONG:
        with pytest.raises(OptionsError) as refused:
            scope["Pictures"].resolve(config)
        messages += str(refused.value).splitlines()
    compare(shown.where, shown.code.splitlines(), messages)
