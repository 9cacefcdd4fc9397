"""Imports point one way (DESIGN §8), and light paths stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

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
MAY_IMPORT = {
    "dscache_sdk": set(),
    "dataset_handlers": {"dscache_sdk"},
    "dscache": {"dscache_sdk"},
    "dscache_builder": {"dscache", "dscache_sdk"},
}
# inside dscache: a module may import only those of an earlier row, or of its own
LAYERS = [
    {"errors", "units", "canonical", "filesystems"},
    {"spec", "layout", "manifests", "state", "config", "transfer", "s3errors", "sigv4"},
    {"buildlog", "zipcheck", "recordcheck", "signed"},
    {"store", "listen", "registers", "markers", "retire", "selftest"},
    {
        "hub",
        "wait",
        "catalog",
        "download",
        "cache",
        "dataset",
        "examples",
        "ownmapper",
        "torchdata",
        "verify",
    },
    {"client"},
    {"api", "cli"},
]
BUILDER_USES = set().union(*LAYERS[:4])


def imported(path: Path) -> set[str]:
    """Absolute names of the modules a file imports at any depth, relative ones resolved."""
    package = path.relative_to(ROOT_OF[top_of(path)]).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def top_of(path: Path) -> str:
    return next(name for name, folder in PACKAGES.items() if path.is_relative_to(folder))


ROOT_OF = {name: folder.parent for name, folder in PACKAGES.items()}
FILES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_distributions_import_only_what_they_may(path: Path) -> None:
    top = top_of(path)
    tops = {name.split(".")[0] for name in imported(path)} & set(PACKAGES)
    assert tops - {top} <= MAY_IMPORT[top]


@pytest.mark.parametrize(
    "path", sorted(PACKAGES["dscache"].glob("*.py")), ids=lambda path: str(path.stem)
)
def test_modules_of_the_client_import_downwards(path: Path) -> None:
    level = layer(path.stem)
    if level is None:
        return
    inside = {name.split(".")[1] for name in imported(path) if name.startswith("dscache.")}
    higher = {name for name in inside if (at := layer(name)) is not None and at > level}
    assert not higher


def layer(module: str) -> int | None:
    return next((i for i, names in enumerate(LAYERS) if module in names), None)


def test_the_builder_uses_the_client_up_to_listen() -> None:
    used = set()
    for path in PACKAGES["dscache_builder"].rglob("*.py"):
        names = {name for name in imported(path) if name.startswith("dscache.")}
        used |= {name.split(".")[1] for name in names}
    modules = {path.stem for path in PACKAGES["dscache"].glob("*.py")} | {"cli", "devstack"}
    assert (used & modules) <= BUILDER_USES


HEAVY = ("boto3", "botocore", "urllib3", "requests", "minio", "tensorflow", "numpy", "PIL", "tqdm")


def loaded_by(code: str) -> set[str]:
    words = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=unmeasured())
    modules = set(done.stdout.split())
    assert "dscache" in modules
    return modules


@pytest.mark.parametrize(
    "code",
    ["import dscache", "import dscache.cli.get", "import dscache.client", "import dscache.cache"],
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
