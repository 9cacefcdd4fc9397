"""The commands and programs of the documentation run as they are written.

Which blocks there are, where each of them runs and what a mark says: tests/support/docblocks.py.
A block that fails is named by its page and line.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv
from PIL import Image

from dscache.config import Config
from dscache.devstack import folder, takedown
from dscache.devstack.localstore import LocalStore
from dscache.errors import AccessDenied
from dscache.store.s3 import Store
from support.docblocks import CHECKOUT, PAGES, Block, all_blocks, use_of
from support.docruns import program_of, run_console, run_script
from support.gotools import ensure_program
from support.packages import own_wheels

pytestmark = [pytest.mark.store, pytest.mark.system, pytest.mark.timeout(600)]
RAW_TILES = "0-?.png"  # of each photograph one tile for val and four for train
OURS = ("AWS_", "DSCACHE_", "XDG_", "TF_")
BLOCKS = all_blocks()


@dataclass(frozen=True)
class Place:
    """Where blocks run: a reader's environment, working directory, and names of his own."""

    environ: Mapping[str, str]
    folder: Path
    placeholders: Mapping[str, str]


def shell_blocks(environment: str) -> list[object]:
    """Parameters: the blocks of commands that run there, by page and line."""
    return [
        pytest.param(block, id=block.where)
        for block in BLOCKS
        if block.language in ("console", "sh") and use_of(block) == environment
    ]


def programs(environment: str) -> list[object]:
    """Parameters: the Python blocks of a page that run there, together, by page and lines."""
    found = {
        page: [
            block
            for block in BLOCKS
            if (block.page, block.language) == (page, "python") and use_of(block) == environment
        ]
        for page in PAGES
    }
    return [
        pytest.param(blocks, id=f"{page}:{','.join(str(block.line) for block in blocks)}")
        for page, blocks in found.items()
        if blocks
    ]


def block_of(page: str, kind: str) -> Block:
    """The first block of a page that is used like this."""
    return next(block for block in BLOCKS if block.page == page and use_of(block) == kind)


def user(home: Path, *programs: Path) -> dict[str, str]:
    """A user with an empty home directory, our commands and these programs, and uv's cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    cached = subprocess.run(
        [uv.find_uv_bin(), "cache", "dir"], capture_output=True, text=True, check=True
    )
    first = [str(path.parent) for path in (*programs, Path(sys.executable))]
    return {
        **kept,
        "HOME": str(home),
        "PATH": ":".join([*first, "/usr/bin", "/bin"]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "UV_CACHE_DIR": cached.stdout.strip(),
    }


@pytest.fixture(scope="module")
def stack(minio_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """`dscache up` with photographs, and what the pages take for granted beside it."""
    home, work = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")
    environ = user(home, minio_binary)
    raw = work / "raw" / "photos"
    write_pictures(raw)
    (work / "cfg.json").write_text(block_of("README.md", "spec").code)
    up = ["dscache", "up", "--json", "--raw", f"photos={raw}"]
    try:
        subprocess.run(up, env=environ, check=True, timeout=120)
        (work / "builder.toml").symlink_to(folder.default(environ) / "builder.toml")
        yield Place(environ, work, {"/srv/raw/photos": str(raw)})
    finally:
        takedown.down(folder.default(environ), environ, delete=True)


def write_pictures(raw: Path) -> None:
    """The demo's photographs, a few tiles of each, as `raw`; some as JPEGs in raw/../pictures."""
    subprocess.run([sys.executable, CHECKOUT / "demo" / "raw_data.py", raw], check=True)
    for tile in [path for path in raw.rglob("*.png") if not path.match(RAW_TILES)]:
        tile.unlink()
    pictures = raw.with_name("pictures")
    pictures.mkdir()
    for tile in raw.glob("train/*/0-1.png"):
        with Image.open(tile) as picture:
            picture.convert("RGB").save(pictures / f"{tile.parent.name}.jpg")


@pytest.fixture(scope="module")
def store(minio_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A store as its operator finds it, MinIO's client, and the policies of the checkout."""
    work = tmp_path_factory.mktemp("operator")
    (work / "infra").symlink_to(CHECKOUT / "infra")
    client = ensure_program("mc", os.environ, print)
    with LocalStore(work / "store", minio_binary, bucket="t-docs") as server:
        root = server.config
        variables = {
            "STORE_ENDPOINT": server.endpoint,
            "STORE_ROOT_USER": root.access_key,
            "STORE_ROOT_PASSWORD": root.secret_key,
            "CLIENT_SECRET": "a-secret-of-the-client",
            "BUILDER_SECRET": "a-secret-of-the-builder",
        }
        placeholders = {
            "https://store.example.org": server.endpoint,
            "ROOT_USER": root.access_key,
            "ROOT_PASSWORD": root.secret_key,
        }
        yield Place({**user(work / "home", client), **variables}, work, placeholders)


@pytest.mark.parametrize("block", shell_blocks("stack"))
def test_commands_do_what_the_page_shows(block: Block, stack: Place) -> None:
    run_shell(block, stack)


@pytest.mark.parametrize("blocks", programs("stack"))
def test_programs_run(blocks: list[Block], stack: Place) -> None:
    run_python(blocks, stack)


@pytest.mark.parametrize("block", shell_blocks("store"))
def test_commands_make_users(block: Block, store: Place) -> None:
    printed = run_shell(block, store)
    secrets = dict(re.findall(r"^dscache-(\w+): (\S+)$", printed, re.MULTILINE))
    check_rights(store, secrets["client"], secrets["builder"])


@pytest.mark.parametrize("blocks", programs("store"))
def test_programs_make_users(blocks: list[Block], store: Place) -> None:
    run_python(blocks, store)
    check_rights(store, store.environ["CLIENT_SECRET"], store.environ["BUILDER_SECRET"])


def test_the_package_of_handlers_md_builds(stack: Place, tmp_path: Path) -> None:
    """The page's first class in the package of its pyproject.toml, tried on its raw data."""
    page = "docs/handlers.md"
    module = tmp_path / "package" / "our_handlers" / "pictures.py"
    module.parent.mkdir(parents=True)
    module.write_text(block_of(page, "stack").code)
    (module.parent / "__init__.py").touch()
    project = block_of(page, "pyproject.toml").code
    (tmp_path / "package" / "pyproject.toml").write_text(project)
    spec = {"dataset_name": "pictures", "handler_version": "1.2.0", "dataset_config": {}}
    (tmp_path / "cfg.json").write_text(json.dumps(spec))
    wheels = own_wheels(tmp_path / "wheels")
    options: list[str | Path] = ["--handler", "package", "--raw", stack.folder / "raw" / "pictures"]
    done = subprocess.run(
        ["dscache-builder", "try", "cfg.json", *options, "--find-links", wheels],
        cwd=tmp_path,
        env=stack.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plan: 10 samples, 10 examples" in done.stdout
    assert (tmp_path / "try-out" / "contact-sheet.png").stat().st_size > 1000


def run_shell(block: Block, place: Place) -> str:
    """Run a block of commands; what it printed, where the page does not show that."""
    names = dict(place.placeholders)
    if "KEY" in block.code.split():
        names["KEY"] = key_of_cfg(place)
    if block.language == "console":
        run_console(block, place.environ, place.folder, names)
        return ""
    return run_script(block, place.environ, place.folder, names)


def key_of_cfg(place: Place) -> str:
    """The key of the dataset that cfg.json describes, built if need be."""
    done = subprocess.run(
        ["dscache", "get", "-q", "cfg.json"],
        cwd=place.folder,
        env=place.environ,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    return Path(done.stdout.strip()).name


def run_python(blocks: list[Block], place: Place) -> None:
    """Run the blocks of a page as one program; its tracebacks name the page and its lines."""
    page = blocks[0].page
    program = f"import sys; exec(compile(sys.stdin.read(), {page!r}, 'exec'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=program_of(blocks),
        cwd=place.folder,
        env=place.environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{page}: exit code {done.returncode}\n{done.stderr}", pytrace=False)


def check_rights(place: Place, client_secret: str, builder_secret: str) -> None:
    """Both users work in the bucket, and only the builder may publish."""
    anybody = Config(endpoint=place.environ["STORE_ENDPOINT"], bucket="dscache")
    client = Store(anybody._replace(access_key="dscache-client", secret_key=client_secret))
    builder = Store(anybody._replace(access_key="dscache-builder", secret_key=builder_secret))
    client.put("requests/x.n.json", b"{}")
    builder.put("datasets/x.ready", b"{}")
    with pytest.raises(AccessDenied):
        client.put("datasets/x.ready", b"{}")
