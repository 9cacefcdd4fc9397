"""What a user installs: wheels built from the sdists, in environments that know no checkout."""

from __future__ import annotations

import email
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
import uv

import dscache
from dscache.config import Config
from support.running import Builder, client_environ, write_builder_toml, write_spec

pytestmark = [pytest.mark.store, pytest.mark.system, pytest.mark.timeout(600)]
CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = CHECKOUT / "requirements" / "dev.txt"
PACKAGES = {  # distribution → folder of its package
    "dscache": CHECKOUT / "dscache",
    "dscache_builder": CHECKOUT / "builder/dscache_builder",
    "dscache_sdk": CHECKOUT / "handlers/sdk/dscache_sdk",
    "dataset_handlers": CHECKOUT / "handlers/dataset-handlers/dataset_handlers",
}
OF_THIS_ENVIRONMENT = ("PYTHON", "VIRTUAL_ENV", "DSCACHE_", "AWS_", "XDG_STATE", "XDG_CONFIG")
PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "retina.jpg", "rocket.jpg")


class Installed:
    """An environment outside the checkout with some of our wheels in it."""

    def __init__(self, folder: Path, *requirements: str) -> None:
        self.folder = folder
        call_uv("venv", "--quiet", "--python", sys.executable, str(folder))
        call_uv("pip", "install", *self._here, "--constraint", str(LOCK), *requirements)

    @property
    def _here(self) -> list[str]:
        return ["--quiet", "--python", str(self.folder / "bin" / "python")]

    def check(self) -> None:
        """Fail unless everything that is declared is installed, in a version that is allowed."""
        call_uv("pip", "check", *self._here)

    def run(self, program: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, from its own folder."""
        return subprocess.run(
            [self.folder / "bin" / program, *words],
            capture_output=True, text=True, check=False, timeout=300, cwd=self.folder,
            env={**bare_environ(), "PATH": f"{self.folder}/bin:/usr/bin:/bin", **environ},
        )  # fmt: skip


def bare_environ() -> dict[str, str]:
    """This environment without what leads back to the checkout or to a store."""
    return {k: v for k, v in os.environ.items() if not k.startswith(OF_THIS_ENVIRONMENT)}


def call_uv(*words: str) -> None:
    done = subprocess.run(
        [uv.find_uv_bin(), *words], capture_output=True, text=True, check=False, env=bare_environ()
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdists of all distributions, and their wheels, which are made of these."""
    folder = tmp_path_factory.mktemp("built")
    for package in PACKAGES.values():
        backend = ["--no-build-isolation", "--python", sys.executable]
        call_uv("build", "--quiet", *backend, "--out-dir", str(folder), str(package.parent))
    return folder


def wheel(built: Path, name: str) -> Path:
    (found,) = built.glob(f"{name}-[0-9]*.whl")
    return found


@pytest.fixture(scope="module")
def client(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A machine that only trains."""
    wheels = [str(wheel(built, name)) for name in ("dscache", "dscache_sdk")]
    return Installed(tmp_path_factory.mktemp("client") / "venv", *wheels)


@pytest.fixture(scope="module")
def data_server(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A machine that builds."""
    wheels = [str(wheel(built, name)) for name in ("dscache_builder", "dscache", "dscache_sdk")]
    return Installed(tmp_path_factory.mktemp("data-server") / "venv", *wheels)


@pytest.fixture(scope="module")
def workstation(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A machine with a store of its own, and with handlers to try."""
    names = ("dscache_builder", "dscache_sdk", "dataset_handlers")
    wheels = [str(wheel(built, name)) for name in names]
    with_extra = f"dscache[up] @ {wheel(built, 'dscache').as_uri()}"
    return Installed(tmp_path_factory.mktemp("workstation") / "venv", with_extra, *wheels)


@pytest.fixture
def builder(
    data_server: Installed,
    builder_config: Config,
    built: Path,
    shared_environments: Path,
    tmp_path: Path,
) -> Iterator[Builder]:
    """The installed builder, running on real pictures."""
    raw = tmp_path / "pictures"
    raw.mkdir()
    found = importlib.util.find_spec("skimage")
    assert found is not None
    assert found.origin is not None
    for name in PICTURES:
        shutil.copy(Path(found.origin).parent / "data" / name, raw)
    datasets = {
        "photos": {
            "handler": "photos", "raw": str(raw), "source": "dataset-handlers=={version}",
        },
    }  # fmt: skip
    toml = write_builder_toml(
        tmp_path / "builder", builder_config, datasets, built, shared_environments
    )
    log = tmp_path / "builder.log"
    program = data_server.folder / "bin" / "dscache-builder"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [program, "--config", str(toml)],
            stdout=output, stderr=output, cwd=tmp_path, env=bare_environ(), start_new_session=True,
        )  # fmt: skip
    running = Builder(toml, log, process)
    yield running
    running.stop()


def metadata_of(path: Path) -> Message:
    with zipfile.ZipFile(path) as opened:
        (name,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(opened.read(name))


@pytest.mark.parametrize("name", PACKAGES)
def test_metadata(built: Path, name: str) -> None:
    found = metadata_of(wheel(built, name))
    assert found["Name"] == name.replace("_", "-")
    assert found["Summary"]
    assert found["Author"] == "The dscache authors"
    assert found["License-Expression"] == "Apache-2.0"
    assert found.get_all("License-File") == ["LICENSE"]
    assert found["Keywords"]
    assert found["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in found.get_all("Classifier", [])
    assert found["Description-Content-Type"] == "text/markdown"
    readme = (PACKAGES[name].parent / "README.md").read_bytes().strip()
    payload = found.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.strip() == readme


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_holds_the_package_and_the_licence(built: Path, name: str) -> None:
    folder = PACKAGES[name]
    ours = {
        f"{name}/{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{name}/py.typed" in ours
    with zipfile.ZipFile(wheel(built, name)) as opened:
        inside = {name for name in opened.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in opened.namelist() if name.endswith("/licenses/LICENSE")]
        assert opened.read(licence) == (CHECKOUT / "LICENSE").read_bytes()
    assert inside == ours


def test_the_local_stacks_files_are_in_the_wheel(built: Path) -> None:
    with zipfile.ZipFile(wheel(built, "dscache")) as opened:
        names = {Path(name).name for name in opened.namelist()}
    assert {"client.json", "builder.json", "flush.go.txt"} <= names


@pytest.mark.parametrize("name", PACKAGES)
def test_a_sdist_holds_nothing_else(built: Path, name: str) -> None:
    (path,) = built.glob(f"{name}-[0-9]*.tar.gz")
    with tarfile.open(path) as opened:
        assert all(member.isfile() for member in opened)
        tops = {Path(member.name).parts[1] for member in opened}
    usual = {name, "LICENSE", "README.md", "PKG-INFO", "pyproject.toml", ".gitignore"}
    assert tops - {"CHANGELOG.md"} == usual


def test_what_is_declared_is_installed(
    client: Installed, data_server: Installed, workstation: Installed
) -> None:
    for installed in (client, data_server, workstation):
        installed.check()


def test_programs_tell_their_version(client: Installed, data_server: Installed) -> None:
    version = dscache.__version__
    assert client.run("dscache", "--version").stdout == f"dscache, version {version}\n"
    told = data_server.run("dscache-builder", "--version").stdout
    assert told == f"dscache-builder, version {version}\n"


def test_get(client: Installed, builder: Builder, client_config: Config, tmp_path: Path) -> None:
    """A dataset of real pictures: asked for, built, downloaded and read by what is installed."""
    cfg = write_spec(
        tmp_path / "cfg.json", "photos",
        image_size=[96, 96], crop_size=[64, 64], input_attributes=["id", "image"],
    )  # fmt: skip
    settings = {k: v for k, v in client_environ(client_config).items() if k.startswith("DSCACHE_")}
    done = client.run("dscache", "get", str(cfg), **settings)
    assert done.returncode == 0, done.stderr + builder.text()
    where = client.run("python", "-c", "import dscache; print(dscache.__file__)").stdout
    assert Path(where).is_relative_to(client.folder)

    examples = list(dscache.Dataset(Path(done.stdout.strip())))
    assert {example["id"] for example in examples} == set(PICTURES)
    for example in examples:
        assert example["image"].shape == (64, 64, 3)
        assert example["image"].std() > 1  # no picture is of one colour

    again = client.run("dscache", "get", str(cfg), **{**settings, "DSCACHE_ENDPOINT": ""})
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_client_says_what_a_local_stack_needs(client: Installed, command: str) -> None:
    done = client.run("dscache", command)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    builder = " dscache-builder" if command == "up" else ""
    assert line.endswith(f'pip install "dscache[up]"{builder}')


def test_a_client_without_a_store_is_told_so(client: Installed, tmp_path: Path) -> None:
    done = client.run("dscache", "doctor", HOME=str(tmp_path))
    assert done.returncode == 2
    assert "no endpoint is configured" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_up_and_down(workstation: Installed, minio_binary: Path, tmp_path: Path) -> None:
    user = {"HOME": str(tmp_path), "PATH": f"{minio_binary.parent}:/usr/bin:/bin"}
    where = ["--directory", str(tmp_path / "stack"), "--json"]
    try:
        started = workstation.run("dscache", "up", *where, **user)
        assert started.returncode == 0, started.stderr
        facts = json.loads(started.stdout)
        assert facts["builder"].startswith("not started: no raw data yet")
        doctor = workstation.run("dscache", "doctor", **user)
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    finally:
        stopped = workstation.run("dscache", "down", "--delete", *where, **user)
    assert stopped.returncode == 0, stopped.stderr
    assert not (tmp_path / "stack").exists()
