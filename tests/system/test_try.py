"""`dscache-builder try` with a working copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support.packages import own_wheels
from support.troubles import TROUBLES, write_samples

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def command(wheels: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line that tries the troubles handler; more words may follow."""
    folder = TROUBLES.write(tmp_path / "package")
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('"dscache-sdk"', '"dscache-sdk[image]"'))
    spec = tmp_path / "specs" / "cfg.json"
    spec.parent.mkdir()

    def line(config: dict[str, object], *words: str) -> list[str]:
        members = {"dataset_name": "troubles", "handler_version": "1.0.0"}
        spec.write_text(json.dumps({**members, "dataset_config": config}))
        named = {
            "--handler": folder,
            "--raw": tmp_path / "raw",
            "--out": tmp_path / "out",
            "--find-links": wheels,
        }
        options = [str(word) for pair in named.items() for word in pair]
        return [sys.executable, "-m", "dscache_builder", "try", str(spec), *options, *words]

    return line


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Environments go into a folder of the test's own; uv's cache stays where it is."""
    import uv

    cache = subprocess.run([uv.find_uv_bin(), "cache", "dir"], capture_output=True, text=True)
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "UV_CACHE_DIR": cache.stdout.strip(),
    }


def test_a_try_leaves_a_contact_sheet(
    command: Callable[..., list[str]], variables: dict[str, str], tmp_path: Path
) -> None:
    write_samples(tmp_path / "raw", {"a.txt": "good", "b.txt": "good", "c.txt": "good"})
    line = command({"size": 2}, "--samples", "2")
    done = subprocess.run(line, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "options: batch_size=4, size=2" in done.stdout
    assert "plan: 3 samples, 3 examples in 1 shards" in done.stdout
    assert "time: 2 samples" in done.stdout
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_a_try_removes_the_environment_of_a_working_copy_that_is_not_used_any_more(
    command: Callable[..., list[str]], variables: dict[str, str], tmp_path: Path
) -> None:
    write_samples(tmp_path / "raw", {"a.txt": "good"})
    subprocess.run(command({}), env=variables, capture_output=True, check=True)
    (marker,) = tmp_path.rglob("work-*/complete")
    project = tmp_path / "package" / "pyproject.toml"
    project.write_text(project.read_text() + "\n# another environment\n")
    for days, kept in ((13, True), (15, False)):
        last_used = time.time() - days * 86_400
        os.utime(marker, (last_used, last_used))
        subprocess.run(command({}), env=variables, capture_output=True, check=True)
        assert marker.parent.exists() is kept
    assert len(list(tmp_path.rglob("work-*/complete"))) == 1


def test_a_try_tells_what_is_wrong(
    command: Callable[..., list[str]], variables: dict[str, str], tmp_path: Path
) -> None:
    write_samples(tmp_path / "raw", {"a.txt": "raises"})
    bad = subprocess.run(command({"siez": 2}), env=variables, capture_output=True, text=True)
    assert bad.returncode == 3
    assert "failed (options)" in bad.stderr
    assert "did you mean 'size'" in bad.stderr
    failing = subprocess.run(command({}), env=variables, capture_output=True, text=True)
    assert failing.returncode == 3
    assert "ValueError: nothing good in a.txt" in failing.stdout


def test_watching_tries_again_after_an_edit(
    command: Callable[..., list[str]], variables: dict[str, str], tmp_path: Path
) -> None:
    write_samples(tmp_path / "raw", {"a.txt": "raises"})
    line = command({}, "--watch")
    with subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            seen = iter(process.stdout.readline, "")
            assert any("nothing good" in said for said in seen)
            assert any("waiting for a change" in said for said in seen)
            module = tmp_path / "package" / "troubles.py"
            module.write_text(module.read_text().replace("raise ValueError", "return str"))
            assert any(said.startswith("contact sheet:") for said in seen)
            assert any("waiting for a change" in said for said in seen)
        finally:
            process.kill()
            guard.cancel()
