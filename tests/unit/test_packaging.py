"""The four distributions: what they declare is what they import, and each fact is in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import dscache
import dscache_builder
from dscache.devstack import extra

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = {  # distribution → folder of the project, its package
    "dscache": (CHECKOUT, "dscache"),
    "dscache-builder": (CHECKOUT / "builder", "dscache_builder"),
    "dscache-sdk": (CHECKOUT / "handlers/sdk", "dscache_sdk"),
    "dataset-handlers": (CHECKOUT / "handlers/dataset-handlers", "dataset_handlers"),
}
BESIDE = {"demo": CHECKOUT / "demo"}  # extras for programs of the checkout, not for the package
OURS = {package: distribution for distribution, (_, package) in PACKAGES.items()}
DISTRIBUTIONS_OF = metadata.packages_distributions()


def project(distribution: str) -> dict[str, Any]:
    """The `[project]` table."""
    text = (PACKAGES[distribution][0] / "pyproject.toml").read_text("utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def names(requirements: list[str]) -> set[str]:
    """Names of the distributions, without extras and versions."""
    return {normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in requirements}


def normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(distribution: str) -> set[str]:
    """Everything a distribution may bring, extras included."""
    table = project(distribution)
    extras = table.get("optional-dependencies", {})
    of_package = [extras[name] for name in extras.keys() - BESIDE.keys()]
    return names(sum(of_package, table["dependencies"])) - {distribution}


def imported(folder: Path) -> set[str]:
    """Distributions of the modules that the sources below a folder import, at any depth."""
    tops: set[str] = set()
    own: set[str] = {folder.name}
    for path in folder.rglob("*.py"):
        own.add(path.stem)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                tops.add((node.module or "").partition(".")[0])
    beside = own if folder in BESIDE.values() else {folder.name}
    return {_distribution(top) for top in tops - sys.stdlib_module_names - beside}


def _distribution(module: str) -> str:
    """Who brings a module; one that is not installed here (torch) has its module's name."""
    return normal(OURS.get(module) or DISTRIBUTIONS_OF.get(module, [module])[0])


@pytest.mark.parametrize("distribution", PACKAGES)
def test_a_distribution_declares_exactly_what_it_imports(distribution: str) -> None:
    folder, package = PACKAGES[distribution]
    assert declared(distribution) == imported(folder / package)


def test_the_demo_can_import_what_its_extra_brings() -> None:
    extras = project("dscache")["optional-dependencies"]
    assert "dscache[tf,up]" in extras["demo"]
    brought = names(extras["demo"] + extras["tf"] + extras["up"])
    assert imported(BESIDE["demo"]) <= brought | {"dscache"}


def test_the_extra_of_the_local_stack_is_what_it_looks_for() -> None:
    up = names(project("dscache")["optional-dependencies"]["up"])
    assert {_distribution(module) for module in extra.MODULES} == up
    assert up <= imported(CHECKOUT / "dscache" / "devstack")


def test_the_lock_covers_what_is_declared() -> None:
    wanted = (CHECKOUT / "requirements" / "dev.in").read_text("utf-8").splitlines()
    brought_by_others = {"botocore"}  # boto3 has a version of its own choice
    everything = set().union(*map(declared, PACKAGES)) | names(
        project("dscache")["optional-dependencies"]["demo"]
    )
    needed = everything - set(PACKAGES) - {"torch"} - brought_by_others  # torch: 2 GB
    assert needed <= set(wanted)


@pytest.mark.parametrize("distribution", PACKAGES)
def test_a_distribution_says_what_it_is(distribution: str) -> None:
    folder, package = PACKAGES[distribution]
    table = project(distribution)
    assert table["readme"] == "README.md"
    assert (folder / "README.md").read_text("utf-8").startswith(f"# {distribution}\n")
    assert table["license"] == "Apache-2.0"
    assert table["license-files"] == ["LICENSE"]
    # a link would leave its sdist, and no build backend follows it
    assert not (folder / "LICENSE").is_symlink()
    assert (folder / "LICENSE").read_bytes() == (CHECKOUT / "LICENSE").read_bytes()
    assert (folder / package / "py.typed").is_file()
    assert table["keywords"] == sorted(table["keywords"])
    assert "Typing :: Typed" in table["classifiers"]
    assert table["classifiers"] == sorted(table["classifiers"])


@pytest.mark.parametrize("distribution", ["dscache", "dscache-builder"])
def test_a_version_is_in_the_package_alone(distribution: str) -> None:
    table = project(distribution)
    assert "version" not in table
    assert table["dynamic"] == ["version"]


def test_the_builder_goes_with_a_client_of_its_minor_version() -> None:
    assert dscache_builder.__version__ == dscache.__version__
    minor = ".".join(dscache.__version__.split(".")[:2])
    assert f"dscache~={minor}.0" in project("dscache-builder")["dependencies"]


@pytest.mark.parametrize("module", ["dscache", "dscache_builder"])
def test_a_program_tells_its_version(module: str) -> None:
    program = module.replace("_", "-")
    code = f"from {module}.{'cli' if module == 'dscache' else '__main__'} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{program}, version {dscache.__version__}\n"


@pytest.mark.parametrize("module", ["dscache", "dscache_builder"])
def test_a_version_costs_no_search_for_metadata(module: str) -> None:
    code = f"import sys, {module}; {module}.__version__; print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("distribution", ["dscache-sdk", "dataset-handlers"])
def test_installed_handlers_are_of_the_version_in_the_checkout(distribution: str) -> None:
    assert metadata.version(distribution) == project(distribution)["version"]


def test_the_changelog_of_the_sdk_begins_with_its_version() -> None:
    page = (CHECKOUT / "handlers/sdk/CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(\d[^\]]*)\]", page, re.MULTILINE)
    assert versions[0] == project("dscache-sdk")["version"]


def test_hooks_run_what_make_check_runs() -> None:
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    variables = {"$(BIN)": ".venv/bin", "@$(MAKE)": "make"}
    commands = [line.strip() for line in recipe[1].splitlines()]
    for variable, value in variables.items():
        commands = [command.replace(variable, value) for command in commands]
    hooks = (CHECKOUT / ".pre-commit-config.yaml").read_text("utf-8")
    assert re.findall(r"^ +entry: (.+)$", hooks, re.MULTILINE) == commands
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
    for setting in ("language: system", "pass_filenames: false"):
        assert hooks.count(setting) == len(commands)
