"""Run the commands of a documentation's blocks as they are written, and compare what they print.

Placeholders are names that a reader replaces by his own: `run` does that too, in commands only.
What differs from run to run does not count in a comparison:

- `…` in a line stands for anything, and a line `…` for any number of lines;
- numbers that are measured: those with a fraction (of bytes also the unit), those before s, ms, %;
- ports of 127.0.0.1, and the home directory, which is `~`;
- lines of progress (`dscache: building 61 %`): which of them come depends on time.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.docblocks import Block

LIMIT_S = 240.0
PHASES = "environment|planning|building|publishing|downloading"
_PROGRESS = re.compile(rf"dscache: ({PHASES})( \d+ %)?( \(.*\))?")
_PORT = r"(?<=127\.0\.0\.1:)\d+"
_NUMBER = r"(?<![\w.])[-+]?(?:\d+\.\d+(?: [KMGT]iB)?|\d+(?= (?:s|ms|%)(?!\w)))(?![\w.])"
_MEASURED = re.compile(f"{_PORT}|{_NUMBER}")
_END = "--- end of step"


@dataclass
class Step:
    """A command of a console block, its line on the page, and the output that is shown below it."""

    line: int
    command: str
    shown: list[str]


def steps_of(block: Block) -> list[Step]:
    """The commands of a console block. Output before the first of them is an error."""
    steps: list[Step] = []
    for number, line in enumerate(block.code.splitlines(), block.line):
        if line.startswith("$ "):
            steps.append(Step(number, line[2:], []))
        else:
            steps[-1].shown.append(line)
    return steps


def run_console(
    block: Block, environ: Mapping[str, str], folder: Path, placeholders: Mapping[str, str]
) -> None:
    """Run a console block in one shell; AssertionError for a failure or for other output."""
    steps = steps_of(block)
    script = "".join(f"{replaced(s.command, placeholders)}\necho '{_END}'\n" for s in steps)
    code, output = _bash(script, environ, folder)
    *finished, rest = output.split(f"{_END}\n")
    for step, text in zip(steps, finished, strict=False):
        printed = text.replace(environ["HOME"], "~").splitlines()
        compare(f"{block.page}:{step.line}: `{step.command}`", step.shown, printed)
    assert code == 0, f"{block.page}:{steps[len(finished)].line}: exit code {code}\n{rest}"


def run_script(
    block: Block, environ: Mapping[str, str], folder: Path, placeholders: Mapping[str, str]
) -> str:
    """Run a block of shell commands, return what it prints; AssertionError for a failure."""
    code, output = _bash(replaced(block.code, placeholders), environ, folder)
    assert code == 0, f"{block.where}: exit code {code}\n{output}"
    return output


def program_of(blocks: list[Block]) -> str:
    """The Python blocks of one page as a program; its lines have the numbers of the page's."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.code.splitlines()
    return "\n".join(lines) + "\n"


def replaced(text: str, placeholders: Mapping[str, str]) -> str:
    """The text with what a reader would put for its placeholders."""
    for name, value in placeholders.items():
        text = value.join(re.split(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", text))
    return text


def compare(where: str, shown: list[str], printed: list[str]) -> None:
    """AssertionError if the page shows other output than what was printed."""
    expected = [line for line in shown if not _PROGRESS.fullmatch(line)]
    actual = [line for line in printed if not _PROGRESS.fullmatch(line)]
    pattern = "".join(pattern_of(line) for line in expected)
    text = "".join(f"{line}\n" for line in actual)
    assert re.fullmatch(pattern, text), "\n".join(
        [f"{where} shows", *shown, "and really prints", *printed]
    )


def pattern_of(line: str) -> str:
    """A regular expression for a line of output, with its end."""
    if line.strip() == "…":
        return r"(?:.*\n)*"
    parts, at = [], 0
    for found in _MEASURED.finditer(line):
        parts += [_literal(line[at : found.start()]), r"[-+]?\d+(?:\.\d+)?(?: [KMGT]?i?B)?"]
        at = found.end()
    return "".join([*parts, _literal(line[at:]), r"\n"])


def _literal(text: str) -> str:
    return re.escape(text).replace("…", ".*")


def _bash(script: str, environ: Mapping[str, str], folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout
