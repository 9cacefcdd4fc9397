"""Imports point one way (docs/architecture.md), and light paths stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import dscache
from support.measured import unmeasured

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "dscache_sdk": ROOT / "handlers/sdk/dscache_sdk",
    "dataset_handlers": ROOT / "handlers/dataset-handlers/dataset_handlers",
    "dscache": ROOT / "dscache",
    "dscache_builder": ROOT / "builder/dscache_builder",
}
# distribution: the others that it may import
DISTRIBUTIONS = {
    "dscache_sdk": set[str](),
    "dataset_handlers": {"dscache_sdk"},
    "dscache": {"dscache_sdk"},
    "dscache_builder": {"dscache", "dscache_sdk"},
}

# One row for each room (a package, or a module that is a room of its own): the rooms it may import.
FOUNDATION = {
    "errors", "units", "files", "terminal", "trust", "canonical", "spec", "reference",
    "credentials", "settings", "config", "logformat",
}  # fmt: skip
CLIENT_ROOMS = {
    "errors": set[str](),
    "units": {"errors"},
    "files": set[str](),
    "terminal": set[str](),
    "logformat": {"terminal"},
    "canonical": {"errors"},
    "spec": {"canonical", "errors"},
    "reference": {"canonical", "errors", "spec"},
    "trust": {"errors", "files"},
    "credentials": set[str](),
    "settings": {"errors"},
    "config": {"credentials", "errors", "files", "settings", "trust", "units"},
    "store": {"config", "errors", "terminal", "units"},
    "protocol": {*FOUNDATION, "store"},
    "folder": {*FOUNDATION, "protocol"},
    "download": {*FOUNDATION, "store", "protocol", "folder"},
    "reading": {*FOUNDATION, "protocol", "folder"},
    "cache": {*FOUNDATION, "protocol", "folder", "download", "reading"},
    "verify": {*FOUNDATION, "store", "protocol", "folder", "download"},
    "catalog": {*FOUNDATION, "store", "protocol"},
    "remote": {*FOUNDATION, "store", "protocol", "catalog", "folder", "download", "cache"},
    "client": {*FOUNDATION, "store", "protocol", "folder", "cache", "reading", "remote"},
    "api": {*FOUNDATION, "protocol", "reading", "client"},
    "__init__": {*FOUNDATION, "reading", "client", "api"},
    "devstack": {*FOUNDATION, "store", "protocol"},
    "cli": {
        *FOUNDATION, "store", "protocol", "catalog", "folder", "cache", "reading", "verify",
        "client", "devstack",
    },
}  # fmt: skip
BUILDER_USES = {*FOUNDATION, "store", "protocol"}
BUILDER_ROOMS = {
    "__init__": set[str](),
    "config": set[str](),
    "identity": set[str](),
    "notify": set[str](),
    "scratch": set[str](),
    "child_environ": set[str](),
    "failure": {"foreign"},
    "foreign": set[str](),
    "reconcile": set[str](),
    "environments": {"child_environ", "failure"},
    "hosting": {"child_environ", "failure", "foreign", "scratch"},
    "raw_watch": {"hosting"},
    "engine": {"hosting"},
    "handler_engine": {
        "config", "engine", "environments", "failure", "hosting", "scratch",
    },
    "attempt": {"engine", "failure", "foreign", "hosting", "scratch"},
    "retries": {"attempt"},
    "unserved": set[str](),
    "daemon": {
        "attempt", "config", "engine", "notify", "raw_watch", "reconcile", "retries", "unserved",
    },
    "commands": {"config", "engine", "environments", "failure", "handler_engine", "hosting"},
    "__main__": {
        "attempt", "commands", "config", "daemon", "environments", "handler_engine", "identity",
        "notify",
    },
}  # fmt: skip
ROOMS = {"dscache": CLIENT_ROOMS, "dscache_builder": BUILDER_ROOMS}


class Module(NamedTuple):
    """A source file: its dotted name, the modules it imports at run time, and those it imports
    for type annotations only."""

    name: str
    path: Path
    imports: frozenset[str]
    type_imports: frozenset[str]

    @property
    def distribution(self) -> str:
        return self.name.partition(".")[0]

    @property
    def room(self) -> str:
        return room_of(self.name)


def room_of(name: str) -> str:
    """`store` for `dscache.store.s3`; `__init__` for the package itself."""
    return [*name.split("."), "__init__"][1]


def read_modules() -> dict[str, Module]:
    paths = {
        dotted(path, folder): path
        for folder in PACKAGES.values()
        for path in sorted(folder.rglob("*.py"))
    }
    return {name: read_module(name, path, paths) for name, path in paths.items()}


def dotted(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_module(name: str, path: Path, known: Mapping[str, Path]) -> Module:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    imports: set[str] = set()
    type_imports: set[str] = set()
    for node in ast.walk(tree):
        for imported in imported_by(node, package):
            target = imported if imported in known else imported.rpartition(".")[0]
            (type_imports if id(node) in typing_only else imports).add(target)
    return Module(name, path, frozenset(imports - {name}), frozenset(type_imports - {name}))


def imported_by(node: ast.AST, package: str) -> Iterator[str]:
    """Absolute dotted names that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*(parents if node.level else []), *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


MODULES = read_modules()


@pytest.mark.parametrize("name", MODULES)
def test_distributions_import_only_what_they_may(name: str) -> None:
    module = MODULES[name]
    imported = {other.partition(".")[0] for other in module.imports | module.type_imports}
    assert (imported & PACKAGES.keys()) - {module.distribution} <= DISTRIBUTIONS[
        module.distribution
    ]


@pytest.mark.parametrize("distribution", ROOMS)
def test_every_room_has_a_row_and_every_row_a_room(distribution: str) -> None:
    rooms = {module.room for module in MODULES.values() if module.distribution == distribution}
    assert rooms == ROOMS[distribution].keys()


@pytest.mark.parametrize(
    "name", [name for name, module in MODULES.items() if module.distribution in ROOMS]
)
def test_rooms_import_only_what_their_row_says(name: str) -> None:
    module = MODULES[name]
    others = module.imports | module.type_imports
    rooms = {room_of(other) for other in others if other.startswith(f"{module.distribution}.")}
    assert rooms - {module.room} <= ROOMS[module.distribution][module.room]


def test_the_builder_uses_store_and_protocol() -> None:
    used = {
        room_of(other)
        for module in MODULES.values()
        if module.distribution == "dscache_builder"
        for other in module.imports | module.type_imports
        if other.startswith("dscache.")
    }
    assert {"store", "protocol"} <= used <= BUILDER_USES


@pytest.mark.parametrize("distribution", ROOMS)
def test_rows_have_no_circles(distribution: str) -> None:
    assert circle(ROOMS[distribution]) == []


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {name: module.imports & MODULES.keys() for name, module in MODULES.items()}
    assert circle(graph) == []


def circle(graph: Mapping[str, set[str] | frozenset[str]]) -> list[str]:
    """One circle of the graph, [] when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_found() -> None:
    assert sorted(set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}))) == ["a", "b", "c"]


def test_the_host_imports_only_its_own_room_and_the_sdk() -> None:
    """It runs in the handler's environment, where dscache is not installed."""
    host = "dscache_builder.hosting.host"
    for module in MODULES.values():
        if module.name.startswith(host):
            ours = {other for other in module.imports if other.partition(".")[0] in PACKAGES}
            assert all(other.startswith((host, "dscache_sdk")) for other in ours), module.name


@pytest.mark.parametrize("room", [path for path in PACKAGES["dscache"].iterdir() if path.is_dir()])
def test_rooms_say_what_happens_in_them(room: Path) -> None:
    if room.name == "__pycache__":
        return
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))


HEAVY = (
    "boto3", "botocore", "urllib3", "requests", "minio", "tensorflow", "numpy", "PIL", "tqdm",
    "logging",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    words = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=unmeasured())
    modules = set(done.stdout.split())
    assert "dscache" in modules
    return modules


@pytest.mark.parametrize(
    "code",
    [
        "import dscache",
        "import dscache.cli.get",
        "import dscache.client",
        "import dscache.cache.cache",
        "import dscache.config, dscache.canonical",
        "import dscache.folder.contents, dscache.folder.locks, dscache.folder.selection",
    ],
)
def test_a_hit_imports_nothing_heavy(code: str) -> None:
    assert loaded_by(code).isdisjoint(HEAVY)


def test_building_needs_no_tensorflow() -> None:
    assert "tensorflow" not in loaded_by(
        "import dscache_builder.daemon, dscache_builder.handler_engine, dataset_handlers.photos"
    )


def test_public_names_are_there() -> None:
    assert sorted(dscache.__all__) == dscache.__all__ != []
    for name in dscache.__all__:
        assert getattr(dscache, name) is not None
    assert set(dscache.__all__) <= set(dir(dscache))
    with pytest.raises(AttributeError, match="no attribute 'gett'"):
        _ = dscache.gett
