"""Every code block of the documentation is tested in some way; files it shows can be read.

What runs is in tests/system/test_doc_blocks.py. How a block is marked: tests/support/docblocks.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dscache_builder.config
from dscache import config
from dscache.spec import load_spec
from support.docblocks import (
    CHECKOUT,
    NOT_RUN,
    PAGES,
    Block,
    Unclassified,
    all_blocks,
    blocks_of,
    use_of,
)
from support.docruns import compare, program_of, replaced, steps_of

BLOCKS = all_blocks()
UNIT = CHECKOUT / "infra" / "systemd" / "dscache-builder.service"
INSTALLED = "/opt/dscache/bin/python"


def used_as(kind: str) -> list[object]:
    """Parameters: the blocks of this kind, by page and line."""
    return [
        pytest.param(block, id=block.where)
        for block in BLOCKS
        if block.language in ("json", "toml", "ini") and use_of(block) == kind
    ]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_somebody_tests_it(block: Block) -> None:
    use_of(block)


@pytest.mark.parametrize("page", PAGES)
def test_every_mark_belongs_to_a_block(page: str) -> None:
    text = (CHECKOUT / page).read_text("utf-8")
    written = re.findall(r"^ *<!-- *(?:runs|not run)", text, re.MULTILINE)
    assert len(written) == len([b for b in BLOCKS if b.page == page and b.mark])


def test_what_a_reason_names_is_there() -> None:
    reasons = [block.mark[1] for block in BLOCKS if block.mark and use_of(block) == NOT_RUN]
    named = {file for reason in reasons for file in re.findall(r"[\w./-]+\.py", reason)}
    assert named
    assert [file for file in named if not (CHECKOUT / file).is_file()] == []


@pytest.mark.parametrize("block", used_as("spec"))
def test_specs_are_specs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text(block.code)
    load_spec(tmp_path / "cfg.json")


@pytest.mark.parametrize("block", used_as("client configuration"))
def test_the_client_reads_its_configuration(block: Block, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(block.code)
    environ = {"HOME": str(tmp_path), "DSCACHE_CONFIG": str(tmp_path / "config.toml")}
    client = config.load(environ=environ, cwd=tmp_path)
    assert client.profile
    assert client.require_endpoint()
    assert client.access_key
    assert client.secret_key


@pytest.mark.parametrize("block", used_as("builder.toml"))
def test_the_builder_reads_its_configuration(block: Block, tmp_path: Path) -> None:
    given = tomllib.loads(block.code)
    rest = "" if "state" in given else 'state = "state"\n'  # the block shows some sections only
    (tmp_path / "builder.toml").write_text(rest + block.code)
    loaded = dscache_builder.config.load(tmp_path / "builder.toml")
    assert loaded.store.endpoint or "store" not in given
    assert loaded.datasets
    assert all("{version}" in source.source for source in loaded.datasets.values())


@pytest.mark.parametrize("block", used_as("unit"))
def test_systemd_takes_the_drop_in(block: Block, tmp_path: Path) -> None:
    assert verified(tmp_path, block.code) == ""


def test_systemd_would_complain(tmp_path: Path) -> None:
    """The check above reads drop-ins: an unknown setting is reported."""
    assert "Restrat" in verified(tmp_path, "[Service]\nRestrat=always\n")


def verified(folder: Path, drop_in: str) -> str:
    """What systemd says of the builder's unit with this drop-in."""
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text().replace(INSTALLED, sys.executable))
    (folder / f"{UNIT.name}.d").mkdir()
    (folder / f"{UNIT.name}.d" / "override.conf").write_text(drop_in)
    program = shutil.which("systemd-analyze")
    assert program, "infra/tools installs it"
    done = subprocess.run(
        [program, "verify", "--man=no", str(unit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


PAGE = """\
# Title

    dscache get old.json

```console
$ dscache get cfg.json    # a comment
dscache: building 61 % (1.9 MiB, 0:07 left)
~/place
…
```

- an item

    that goes on

<!-- runs: store -->
~~~~python
```
~~~~
"""


def test_blocks_are_found() -> None:
    indented, console, python = blocks_of("page.md", PAGE)
    assert (indented.where, indented.language) == ("page.md:3", "")
    assert (console.where, console.language, console.mark) == ("page.md:6", "console", None)
    assert (python.where, python.mark, python.code) == ("page.md:18", ("runs", "store"), "```\n")


@pytest.mark.parametrize(
    "text",
    [
        "```\nplain\n```",
        "    dscache get cfg.json",
        "```text\n$ dscache get cfg.json\n```",
        "```text\ndscache get cfg.json\n```",
        "```yaml\na: 1\n```",
        '```json\n{"a": 1}\n```',
        "```toml\na = 1\n```",
        "<!-- not run: later -->\n```sh\nls\n```",
        "<!-- runs: somewhere -->\n```sh\nls\n```",
        "<!-- runs: stack -->\n```text\nls\n```",
    ],
)
def test_a_block_that_nobody_tests_is_an_error(text: str) -> None:
    (block,) = blocks_of("page.md", text)
    with pytest.raises(Unclassified, match=r"^page\.md:\d"):
        use_of(block)


def test_steps_know_their_lines() -> None:
    (_, console, _) = blocks_of("page.md", PAGE)
    (step,) = steps_of(console)
    assert (step.line, step.command) == (6, "dscache get cfg.json    # a comment")
    assert step.shown[1:] == ["~/place", "…"]


def test_a_program_has_the_lines_of_its_page() -> None:
    first, second = blocks_of("p.md", "```python\na = 1\n```\n\n```python\nb = 2\n```\n")
    assert program_of([first, second]).splitlines() == ["", "a = 1", "", "", "", "b = 2"]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["0.08 s, 640 patches"], ["1.5 s, 640 patches"]),
        (["can be read (161 ms)"], ["can be read (9 ms)"]),
        (["clock is -0 s from"], ["clock is +2 s from"]),
        (["(73.5 GiB free)"], ["(1.2 TiB free)"]),
        (["http://127.0.0.1:44691, bucket"], ["http://127.0.0.1:9, bucket"]),
        (["option 'x': …"], ["option 'x': there is none"]),
        (["…", "end"], ["one", "two", "end"]),
        (["…"], []),
        (["dscache: planning", "done"], ["dscache: building 3 %", "done"]),
    ],
)
def test_what_differs_from_run_to_run_does_not_count(shown: list[str], printed: list[str]) -> None:
    compare("page.md:1", shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ([], ["a line"]),
        (["a line"], []),
        (["640 patches"], ["641 patches"]),
        (["photos_1.0.0_ab"], ["photos_1.0.1_ab"]),
        (["dscache: error"], []),
        (["…", "end"], ["end", "more"]),
    ],
)
def test_what_the_page_must_not_get_wrong(shown: list[str], printed: list[str]) -> None:
    with pytest.raises(AssertionError, match=r"^page\.md:1 shows"):
        compare("page.md:1", shown, printed)


def test_placeholders_are_whole_words() -> None:
    table = {"KEY": "photos_1", "/srv/raw/photos": "/tmp/p"}
    assert replaced("verify KEY KEYS my-KEY", table) == "verify photos_1 KEYS my-KEY"
    assert replaced("photos=/srv/raw/photos", table) == "photos=/tmp/p"
