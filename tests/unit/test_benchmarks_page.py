"""docs/benchmarks.md has a block for each benchmark."""

from __future__ import annotations

import re

import pytest

from benchmarks.__main__ import MACHINE, PAGE, SCRIPTS, with_block


def test_blocks_of_the_page_are_those_of_the_program() -> None:
    page = PAGE.read_text()
    begun = re.findall("<!-- begin (.*) -->", page)
    assert begun == re.findall("<!-- end (.*) -->", page)
    assert sorted(begun) == sorted([MACHINE, *SCRIPTS])


def test_only_the_block_is_replaced() -> None:
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb"
    assert with_block(page, "x", r"new \1") == page.replace("old", r"new \1")
    with pytest.raises(ValueError, match="has no <!-- begin y -->"):
        with_block(page, "y", "new")
