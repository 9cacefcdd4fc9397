"""Pages and code agree: commands, exit codes, settings, numbers, links."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from dscache import config, errors
from dscache.cli.group import COMMANDS, cli
from dscache.protocol import layout
from dscache.protocol.manifests import FailureKind
from dscache.protocol.state import State
from dscache.spec import load_spec
from dscache_builder.config import BuilderConfig, DatasetSource, StoreSection

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text("utf-8")
PAGES = {
    str(path.relative_to(CHECKOUT)): path.read_text("utf-8")
    for pattern in ("*.md", "docs/*.md", "builder/*.md", "handlers/*/*.md")
    for path in sorted(CHECKOUT.glob(pattern))
}
PROTOCOL = PAGES["docs/protocol.md"]


def section(page: str, title: str) -> str:
    """The text of `## title`, up to the next heading of that level."""
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def errors_below(kind: type[errors.DscacheError]) -> Iterator[type[errors.DscacheError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from errors_below(below)


def test_every_exit_code_is_in_the_readme_and_no_other() -> None:
    codes = {error.exit_code for error in errors_below(errors.DscacheError)}
    codes |= {errors.EXIT_OK, errors.EXIT_INTERRUPTED}
    written = re.findall(r"^\| (\d+) \|", section(README, "Exit codes"), re.MULTILINE)
    assert {int(code) for code in written} == codes


def test_help_names_the_same_exit_codes() -> None:
    written = re.findall(r"^\| (\d+) \|", section(README, "Exit codes"), re.MULTILINE)
    assert cli.epilog is not None
    assert re.findall(r"(\d+) [a-z]", cli.epilog) == written


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"^\| .*`dscache {name}\b", README, re.MULTILINE)


def test_every_command_of_the_local_cache_is_in_the_readme() -> None:
    row = next(line for line in README.splitlines() if line.startswith("| `dscache cache"))
    group = cli.get_command(click.Context(cli), "cache")
    assert isinstance(group, click.Group)
    assert set(re.findall(r"`(?:dscache cache )?(\w+)`", row)) == set(group.commands)


def test_every_setting_of_the_builder_is_in_the_operations_page_and_no_other() -> None:
    table = section(PAGES["docs/operations.md"], "The builder")
    written = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    settings = {*BuilderConfig.__struct_fields__, *DatasetSource.__struct_fields__}
    assert written == settings - {"store", "datasets"}
    row = next(line for line in table.splitlines() if line.startswith("| `[store]` |"))
    assert set(re.findall(r"`(\w+)`", row)) == set(StoreSection.__struct_fields__)


def test_no_command_is_made_up() -> None:
    text = "\n".join(PAGES.values())
    assert set(re.findall(r"(?:`|\$ )dscache ([a-z]+)\b", text)) == set(COMMANDS)
    of_cache = set(re.findall(r"dscache cache ([a-z]+)", text))
    group = cli.get_command(click.Context(cli), "cache")
    assert isinstance(group, click.Group)
    assert of_cache and of_cache <= set(group.commands)


def test_the_builders_commands_are_in_the_readme() -> None:
    mentioned = set(re.findall(r"^\| `dscache-builder ([a-z]+) ", README, re.MULTILINE))
    program = [sys.executable, "-m", "dscache_builder", "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert mentioned == set(re.findall(r"^  ([a-z]+)  ", shown.split("Commands:")[1], re.M))


def test_the_demo_asks_for_the_handlers_of_this_checkout() -> None:
    project = (CHECKOUT / "handlers" / "dataset-handlers" / "pyproject.toml").read_text()
    version = tomllib.loads(project)["project"]["version"]
    assert load_spec(CHECKOUT / "demo" / "patches.json").handler_version == version


def test_options_in_the_readme_exist() -> None:
    known: set[str] = {"--config", "--check-config", "--once", "--directory"}  # builder, demo
    groups: list[click.Group] = [cli]
    while groups:
        group = groups.pop()
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            known |= {word for option in command.params for word in option.opts}
            if isinstance(command, click.Group):
                groups.append(command)
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)  # other programs' options
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose)) - {"--strict"}
    assert mentioned and mentioned <= known


def test_every_setting_and_its_variables_are_in_the_readme() -> None:
    rows = section(README, "Configuration")
    for setting, variables in config.ENVIRONMENT.items():
        row = re.search(rf"^\| `{setting}` \|.*$", rows, re.MULTILINE)
        assert row is not None, setting
        assert re.findall(r"`([A-Z_0-9]+)`", row[0]) == list(variables)


def test_every_state_is_in_the_readme() -> None:
    table = section(README, "What is in the bucket").partition("| state | when |")[2]
    # an alias has no state of its own
    expected = {state.value for state in State} - {State.ALIAS.value}
    assert set(re.findall(r"^\| ([a-z]+) \| ", table, re.MULTILINE)) == expected


def test_every_failure_class_is_in_the_readme() -> None:
    rows = section(README, "Troubleshooting")
    named = set(re.findall(r"`(?:the build failed: )?([a-z-]+): …`", rows))
    assert named == set(get_args(FailureKind))


@pytest.mark.parametrize("page", ["README.md", "docs/protocol.md"])
def test_every_object_of_a_build_is_on_the_page(page: str) -> None:
    names = [
        layout.request("<key>", "<nonce>"),
        layout.cancel("<key>", "<nonce>"),
        layout.claim("<key>"),
        layout.archive("<key>", 0),
        layout.ready("<key>"),
        layout.failed("<key>", "<nonce>"),
        layout.progress("<key>"),
    ]
    for name in names:
        assert f"`{name}`" in PAGES[page], name


def test_numbers_of_the_protocol_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| .* \| ([\d., ]+) \| `([\w.]+)` \|$", PROTOCOL, re.MULTILINE)
    assert len(rows) == section(PROTOCOL, "Numbers").count("\n| ") - 1 > 0  # without the heading
    for written, where in rows:
        module, _, name = where.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        numbers = value if isinstance(value, tuple) else (value,)
        assert [float(number) for number in written.split(",")] == list(map(float, numbers)), where


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(PAGES.values())
    mentioned = set(re.findall(r"(?:`|\n)make ([a-z]+)", text))
    assert mentioned and mentioned <= targets


def anchors(page: str) -> set[str]:
    """What a forge makes of the headings: lower case, no punctuation, blanks become dashes."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [
    (page, target)
    for page, text in PAGES.items()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text)
]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_links_lead_somewhere(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (CHECKOUT / page).parent / path if path else CHECKOUT / page
    assert file.exists()
    if anchor:
        assert anchor in anchors(file.read_text("utf-8"))


def test_folders_and_files_that_the_architecture_names_exist() -> None:
    page = PAGES["docs/architecture.md"].partition("## Rooms to come")[0]
    names = re.findall(r"`((?:dscache|builder|handlers|infra|tests|demo|docs)/[\w./-]*)`", page)
    assert names
    for name in names:
        assert (CHECKOUT / name).exists(), name


def test_every_promise_names_a_test_that_exists() -> None:
    rows = [line for line in PAGES["docs/reliability.md"].splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promise |")]
    assert promises
    for promise in promises:
        names = re.findall(r"`(tests/[\w./]+)`", promise)
        assert names, promise
        for name in names:
            assert (CHECKOUT / name).exists(), name


def test_the_architecture_describes_every_room() -> None:
    """Modules that stand for themselves included; `__init__` and `__main__` are no rooms."""
    page = PAGES["docs/architecture.md"].partition("## Rooms to come")[0]
    for package in ("dscache", "builder/dscache_builder"):
        for path in (CHECKOUT / package).iterdir():
            if path.suffix == ".py" and not path.name.startswith("__"):
                assert f"`{path.name}`" in page, path
            elif (path / "__init__.py").is_file():
                assert f"`{path.name}/`" in page, path
