"""`make demo`, twice, as a user with an empty home directory: a build, then a cache hit."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from dscache.devstack import folder, record, takedown
from dscache.devstack.localstore import LocalStore
from dscache.protocol import layout
from dscache.store.objects import ListedObject
from dscache.store.s3 import Store
from support.docblocks import Block, all_blocks, use_of
from support.docruns import pattern_of
from support.measured import unmeasured

pytestmark = [pytest.mark.store, pytest.mark.system, pytest.mark.timeout(600)]
CHECKOUT = Path(__file__).resolve().parents[2]
HIT_S = 1.0  # on a busy machine; benchmarks/ measures it
OURS = ("AWS_", "DSCACHE_", "XDG_", "TF_")


@pytest.fixture
def environ(tmp_path: Path, minio_binary: Path) -> Iterator[dict[str, str]]:
    """A user who has this machine's server, packages and certificates, and nothing else yet.

    What the demo starts is taken down at the end.
    """
    kept = {name: value for name, value in unmeasured().items() if not name.startswith(OURS)}
    cached = subprocess.run(
        [uv.find_uv_bin(), "cache", "dir"], capture_output=True, text=True, check=True
    )
    user = {
        **kept,
        "HOME": str(tmp_path / "user"),
        "PATH": f"{minio_binary.parent}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "UV_CACHE_DIR": cached.stdout.strip(),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    yield user
    stack = folder.default(user)
    if (stack / record.STACK_FILE).is_file():
        takedown.down(stack, user, delete=True)


def demo(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "demo" / "run.py", *words],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def bucket(environ: dict[str, str], minio_binary: Path) -> dict[str, ListedObject]:
    """Every object of the demo's bucket: a claim or a request shows as a new or changed one."""
    stack = LocalStore(folder.default(environ), minio_binary)
    return {entry.name: entry for entry in Store(stack.config).entries("")}


def test_a_build_then_a_hit(environ: dict[str, str], minio_binary: Path) -> None:
    first = demo(environ, "--epochs", "2")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "downloaded and verified" in first.stdout
    accuracy, chance = re.findall(r"val accuracy (\S+) .*\(chance: (\S+)\)", first.stdout)[0]
    assert float(accuracy) > 3 * float(chance)
    assert re.search(r"^photos_[^_]+_[0-9a-f]{32} +3200 examples", first.stdout, re.MULTILINE)
    assert "Web console   http://127.0.0.1:" in first.stdout
    password = record.credentials(folder.default(environ)).client.secret_key
    assert password not in first.stdout  # standard output is no terminal here

    before = bucket(environ, minio_binary)
    assert len([name for name in before if name.endswith(".zip")]) == 1
    assert not [name for name in before if name.startswith(layout.REQUESTS)]
    second = demo(environ, "--epochs", "1")
    assert second.returncode == 0, second.stdout + second.stderr
    seconds = re.findall(r"^(\S+) s, a cache hit: the store was not asked", second.stdout, re.M)
    assert float(seconds[0]) < HIT_S
    assert bucket(environ, minio_binary) == before  # no request, no claim, no download
    assert second.stderr == ""  # no progress, and nothing of TensorFlow's
    for block in blocks_run_in("demo"):
        assert_shortened(block, second.stdout.replace(environ["XDG_CACHE_HOME"], "~/.cache"))


def blocks_run_in(environment: str) -> list[Block]:
    found = [block for block in all_blocks() if use_of(block) == environment]
    assert found
    return found


def assert_shortened(block: Block, printed: str) -> None:
    """The page shows lines of the output in their order, and commands with fewer options."""
    rest = iter(printed.splitlines())
    for number, shown in enumerate(block.code.splitlines(), block.line):
        same = is_short_for if shown.startswith("$ ") else is_alike
        assert any(same(shown, line) for line in rest), f"{block.page}:{number}: {shown}"


def is_alike(shown: str, line: str) -> bool:
    return re.fullmatch(pattern_of(shown), f"{line}\n") is not None


def is_short_for(shown: str, line: str) -> bool:
    """Whether the words of the shown command, without folders of programs, are all there."""
    if not line.startswith("$ "):
        return False
    words = iter(program_names(line))
    return all(word in words for word in program_names(shown))


def program_names(command: str) -> list[str]:
    """The words of a `$ command`; programs of an environment without their folder."""
    return [re.sub(r"^\S*/bin/", "", word) for word in shlex.split(command)]


def test_it_says_what_is_in_the_way(environ: dict[str, str], tmp_path: Path) -> None:
    folder_of_somebody = tmp_path / "state" / "dscache" / "demo" / "photos"
    folder_of_somebody.mkdir(parents=True)
    (folder_of_somebody / "mine.jpg").write_bytes(b"")
    done = demo(environ)
    assert done.returncode == 1
    assert done.stderr == (f"demo: {folder_of_somebody} was not made by the demo; move it away\n")
    assert (folder_of_somebody / "mine.jpg").exists()
    assert not folder.default(environ).exists()


def test_a_command_that_fails_ends_it(environ: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "config" / "dscache" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("profile = 3 =\n")
    done = demo(environ)
    assert done.returncode == 1
    assert f"{config}: not TOML" in done.stderr
    assert "failed with exit code 2; see above" in done.stderr.splitlines()[-1]
