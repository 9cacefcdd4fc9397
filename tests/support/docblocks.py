"""The code blocks of the documentation: where they are, and how each of them is tested.

A block's language decides what happens to it:

    console   lines `$ command` run in a shell; what is printed must be what the page shows
    sh        runs in a shell
    python    runs; the blocks of a page are one program
    json      a spec, read by the client
    toml      a client's configuration, a builder.toml, or a handler's pyproject.toml
    ini       a drop-in of the builder's unit, read by systemd
    text      a picture or output, for people
    {…}       a directive of the documentation site, which `make docs` carries out: no block

A mark changes that. It is a comment, which readers do not see, in the line before the block:

    <!-- runs: store -->           in another environment than the usual one; see ENVIRONMENTS
    <!-- not run: REASON -->

`use_of` raises Unclassified for every other block, so none is left untested without a reason.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for pattern in (
        "*.md",
        "docs/*.md",
        "demo/**/*.md",
        "infra/**/*.md",
        "builder/*.md",
        "handlers/**/*.md",
    )
    for path in CHECKOUT.glob(pattern)
)
ENVIRONMENTS = {
    "stack": "a running `dscache up` with photographs; cfg.json and builder.toml are there",
    "store": "a store that is still empty, its root's password, and the folder infra/",
    "demo": "the checkout, after `make demo`: what its second run prints, shortened",
}
RUN = ("console", "sh", "python")
NOT_RUN = "not run"
MIN_REASON = 15  # characters

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})\s*(\S*)")
_MARK = re.compile(r"<!-- (runs|not run): (.+) -->")
_COMMAND = re.compile(r"\$ .*|(dscache|dscache-builder|make|pip|python3?|mc|systemctl) [ -~]+")
_TABLES = {  # a table that only this kind of file has
    "profiles": "client configuration",
    "datasets": "builder.toml",
    "project": "pyproject.toml",
}


class Unclassified(Exception):
    """Nobody has said how the block is tested. The message says what can be done."""


@dataclass(frozen=True)
class Block:
    """A code block. `line` is that of its first line of code, counted from 1; `mark` is what the
    comment before it says, as (kind, text). An indented block has no language."""

    page: str
    line: int
    language: str
    code: str
    mark: tuple[str, str] | None = None

    @property
    def where(self) -> str:
        """`README.md:17`, as editors understand it."""
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> list[Block]:
    """All code blocks of a page, in order."""
    blocks = _blocks(page, text.splitlines())
    return [block for block in blocks if not block.language.startswith("{")]


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [
        block for page in PAGES for block in blocks_of(page, (CHECKOUT / page).read_text("utf-8"))
    ]


def use_of(block: Block) -> str:
    """How the block is tested: an environment it runs in, NOT_RUN, or the kind of file it is.

    Raises Unclassified.
    """
    if block.mark is not None:
        return _marked(block, *block.mark)
    if block.language in RUN:
        return "stack"
    if block.language == "json" and '"dataset_name"' in block.code:
        return "spec"
    if block.language == "toml":
        tables = tomllib.loads(block.code)
        if kinds := [kind for table, kind in _TABLES.items() if table in tables]:
            return kinds[0]
    if block.language == "ini" and "[Service]" in block.code:
        return "unit"
    if block.language == "text":
        if any(_COMMAND.fullmatch(line) for line in block.code.splitlines()):
            raise Unclassified(f"{block.where}: a command in ```text; make it console or sh")
        return "text"
    raise Unclassified(
        f"{block.where}: a block of language {block.language!r} that no test knows; give it one of "
        "console, sh, python, json, toml, ini, text, or a mark (tests/support/docblocks.py)"
    )


def _marked(block: Block, kind: str, said: str) -> str:
    if kind == "not run":
        if len(said) < MIN_REASON:
            raise Unclassified(f"{block.where}: {said!r} is not much of a reason")
        return NOT_RUN
    if block.language not in RUN or said not in ENVIRONMENTS:
        raise Unclassified(
            f"{block.where}: only {', '.join(RUN)} run, in one of {', '.join(ENVIRONMENTS)}"
        )
    return said


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        before = lines[at - 1] if at else ""
        if fence := _FENCE.match(lines[at]):
            end = _closing(lines, at + 1, fence[2])
            code = [line.removeprefix(fence[1]) for line in lines[at + 1 : end]]
            mark = _MARK.fullmatch(before)
            yield Block(
                page, at + 2, fence[3], "\n".join(code) + "\n", (mark[1], mark[2]) if mark else None
            )
            at = end + 1
        elif lines[at].startswith("    ") and not before.strip() and not _in_list(lines, at):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield Block(page, at + 1, "", "\n".join(lines[at:end]).rstrip() + "\n")
            at = end
        else:
            at += 1


def _closing(lines: list[str], at: int, fence: str) -> int:
    return next(n for n in range(at, len(lines)) if lines[n].strip().startswith(fence))


def _in_list(lines: list[str], at: int) -> bool:
    """Whether the nearest paragraph above that is not indented is a list's item."""
    above = (line for line in reversed(lines[:at]) if line.strip() and not line.startswith("  "))
    return bool(re.match(r"[-*+] |\d+\. ", next(above, "")))
