"""Careless configuration is answered with one line that names the setting, and no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dscache.client import Client
from dscache.config import Config
from dscache.protocol import manifests
from dscache.protocol.manifests import Live
from dscache.spec import load_spec
from support.running import clean_environ, write_spec

MAIN = "from dscache.cli import main; main()"
OTHER_BYTES = os.fsdecode(b"\xff\xfe")
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SECRET = "s3cr3t"
USABLE = {"DSCACHE_ENDPOINT": "http://127.0.0.1:1", "DSCACHE_ACCESS_KEY": "k"}


def dscache(
    folder: Path, *words: str, program: str = MAIN, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """The command line in a folder that is also the user's home."""
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder, capture_output=True, check=False, timeout=60,
        env={**clean_environ(), "HOME": str(folder), **environ},
    )  # fmt: skip


def assert_one_line(done: subprocess.CompletedProcess[bytes], code: int, *said: str) -> None:
    text = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b""), text
    assert text.startswith("dscache: ")
    assert text.count("\n") == 1, text
    for word in said:
        assert word in text
    assert SECRET not in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_spec(tmp_path / "cfg.json", "photos")
    return tmp_path


@pytest.mark.parametrize(
    "environ",
    [
        {"DSCACHE_ACCESS_KEY": f"{SECRET}\n"},
        {"DSCACHE_ACCESS_KEY": f"{SECRET}\r"},
        {"DSCACHE_ACCESS_KEY": f"ключ{SECRET}"},
        {"DSCACHE_ACCESS_KEY": f"{SECRET} x"},
        {"DSCACHE_SECRET_KEY": f"{SECRET}{OTHER_BYTES}"},
        {"DSCACHE_SECRET_KEY": f"{SECRET}\n"},
        {"DSCACHE_SESSION_TOKEN": f"{SECRET}\n"},
        {"AWS_SESSION_TOKEN": f"{SECRET}\n"},
        {"DSCACHE_REGION": "us\n"},
        {"DSCACHE_REGION": "us/s3"},
        {"DSCACHE_BUCKET": "büro"},
        {"DSCACHE_BUCKET": "a b"},
        {"DSCACHE_BUCKET": "../other"},
        {"DSCACHE_ENDPOINT": "http://exa mple.org"},
        {"DSCACHE_ENDPOINT": "http://"},
        {"DSCACHE_ENDPOINT": "http://ex..ample.org"},
        {"DSCACHE_ENDPOINT": "http://[::1"},
        {"DSCACHE_ENDPOINT": "http://[::::1]"},
        {"DSCACHE_ENDPOINT": "http://example.org\n"},
        {"DSCACHE_ENDPOINT": "ftp://example.org"},
        {"DSCACHE_ENDPOINT": f"http://user:{SECRET}@127.0.0.1:1"},
        {"DSCACHE_ENDPOINT": f"http://user:{SECRET}/@127.0.0.1:1"},
        {"DSCACHE_ENDPOINT": f"http://127.0.0.1:1/?key={SECRET}"},
        {"DSCACHE_PUBLIC_ENDPOINT": "http://h:99999"},
        {"DSCACHE_PUBLIC_ENDPOINT": "http://h:0"},
        {"DSCACHE_PUBLIC_ENDPOINT": "store.example.org"},
        {"DSCACHE_CONSOLE": f"https://user:{SECRET}@example.org"},
        {"DSCACHE_CLIENT_NAME": "me\nforged: line"},
        {"DSCACHE_HOME": "~nosuchuser/x"},
        {"DSCACHE_SHARED_HOMES": "/x:~nosuchuser/x"},
        {"DSCACHE_CACHE_LIMIT": f"{'9' * 400}GB"},
        {"DSCACHE_CACHE_LIMIT": "9" * 5000},
    ],
    ids=str,
)
def test_a_variable_that_cannot_be_used(environ: dict[str, str], folder: Path) -> None:
    (variable,) = environ
    setting = variable.partition("_")[2].lower()
    done = dscache(folder, "get", "--no-build", "cfg.json", **{**USABLE, **environ})
    assert_one_line(done, 2, f"${variable}", setting)
    assert_one_line(dscache(folder, "get", "cfg.json", **{**USABLE, **environ}), 2, setting)


@pytest.mark.parametrize(
    "text",
    [
        'home = "a\\u0000b"',
        "profiles = 3",
        'profile = "local"\n[profiles]\nlocal = 3',
        'profile = ["local"]',
        f"a = {'[' * 100_000}",
        f'secret_key = "{SECRET}\\n"',
        f'session_token = "{SECRET}\\u0000"',
        f'endpoint = "http://user:{SECRET}@example.org"',
        'client_name = "\\u001b[2J"',
        f"cache_limit = {'9' * 5000}",
        "cache_limit = 9223372036854775808",
    ],
    ids=lambda text: text[:40],
)
@pytest.mark.parametrize("name", ["dscache.toml", ".config/dscache/config.toml"])
def test_a_file_that_cannot_be_used(name: str, text: str, folder: Path) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for words in (("get", "cfg.json"), ("cache", "ls")):
        assert_one_line(dscache(folder, *words), 2, str(path))


def cached(home: Path, folder: Path) -> Path:
    """The folder of the config's dataset, in that cache."""
    spec = load_spec(folder / "cfg.json")
    live = Live(spec=spec, generation=0, zip_key="z", zip_etag="e", zip_size=1, seal="", members=[])
    dataset = home / "datasets" / spec.key
    dataset.mkdir(parents=True)
    (dataset / "manifest.json").write_bytes(manifests.encode(live))
    return dataset


@pytest.mark.parametrize("name", [b"plain", "хранилище".encode(), b"x\xff", b"line\nbreak"])
@pytest.mark.parametrize(
    "environ",
    [{}, ASCII_LOCALE, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=["utf8", "C", "ascii", "latin-1"],
)
def test_the_path_that_is_printed_is_the_path(
    environ: Mapping[str, str], name: bytes, folder: Path
) -> None:
    home = folder / os.fsdecode(name)
    dataset = cached(home, folder)
    for options in ((), ("-q",)):  # answered before click is imported, and by the command
        done = dscache(folder, "get", *options, "cfg.json", DSCACHE_HOME=str(home), **environ)
        assert (done.returncode, done.stdout) == (0, os.fsencode(dataset) + b"\n"), done.stderr


@pytest.mark.parametrize(
    "environ",
    [ASCII_LOCALE, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=["C", "ascii", "latin-1"],
)
def test_text_that_the_terminal_cannot_show(environ: Mapping[str, str], folder: Path) -> None:
    home = folder / "хранилище"
    dataset = cached(home, folder)
    settings = {"DSCACHE_HOME": str(home), "DSCACHE_CLIENT_NAME": "я", **USABLE, **environ}
    listed = dscache(folder, "cache", "ls", **settings)
    assert (listed.returncode, dataset.name.encode() in listed.stdout) == (0, True), listed.stderr
    examined = dscache(folder, "doctor", **settings)
    assert (examined.returncode, b"FAIL  read" in examined.stdout) == (7, True), examined.stderr
    unknown = dscache(folder, "get", "ящик.json", **settings)
    assert (unknown.returncode, unknown.stderr[:8]) == (2, b"dscache:")


HEADERS = (
    f"Invalid header value b'AWS4-HMAC-SHA256 Credential={SECRET}/x, Signature={SECRET}' "
    f"at http://u:{SECRET}@h/?X-Amz-Signature={SECRET}&X-Amz-Security-Token={SECRET}&x=1"
)
BUILDER_UNEXPECTED = f"""
import dscache.store.s3, dscache_builder.config, dscache_builder.__main__
def fail(*_, **__):
    raise ValueError({HEADERS!r} + "\\n\\x1b[2Jsecond line")
dscache.store.s3.Store = dscache_builder.config.Config = fail
import dscache_builder.commands.try_handler as t
t.try_once = fail
dscache_builder.__main__.main()
"""
UNEXPECTED = f"""
import sys
import dscache.config
def load(**_):
    raise ValueError({HEADERS!r} + "\\n\\x1b[2Jsecond line")
dscache.config.load = load
{MAIN}
"""


@pytest.mark.parametrize("words", [("get", "cfg.json"), ("get", "-q", "cfg.json"), ("cache", "ls")])
def test_an_unexpected_error_is_one_line_without_secrets(
    words: tuple[str, ...], folder: Path
) -> None:
    done = dscache(folder, *words, program=UNEXPECTED)
    assert_one_line(done, 1, "unexpected", "ValueError", "Invalid header value", "-v")
    assert b"Traceback" not in done.stderr


def test_v_shows_where_it_happened_without_secrets(folder: Path) -> None:
    done = dscache(folder, "get", "-v", "cfg.json", program=UNEXPECTED)
    text = done.stderr.decode()
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in text
    assert 'common.py", line' in text
    assert "second line" in text
    assert SECRET not in text
    assert "\x1b" not in text


BUILDER_TOML = """
state = "state"
[store]
endpoint = "http://127.0.0.1:1"
[datasets.photos]
handler = "photos"
raw = "raw"
source = "dataset-handlers=={version}"
"""


def test_an_unexpected_error_of_the_builder(folder: Path) -> None:
    (folder / "builder.toml").write_text(BUILDER_TOML)
    daemon = dscache(folder, program=BUILDER_UNEXPECTED)
    command = dscache(folder, "try", "cfg.json", program=BUILDER_UNEXPECTED)
    verbose = dscache(folder, "-v", "try", "cfg.json", program=BUILDER_UNEXPECTED)
    for done in (daemon, command, verbose):
        text = done.stderr.decode()
        assert done.returncode == 1, text
        assert "dscache-builder: unexpected error: ValueError: Invalid header value" in text
        assert SECRET not in text and "\x1b" not in text
        assert ("Traceback" in text) is (done is not command)
        assert (text.count("\n") == 1) is (done is command)


def test_the_builder_names_a_setting_that_cannot_be_used(folder: Path) -> None:
    (folder / "builder.toml").write_text(BUILDER_TOML)
    main = "from dscache_builder.__main__ import main; main()"
    done = dscache(folder, program=main, AWS_SESSION_TOKEN=f"{SECRET}\n")
    text = done.stderr.decode()
    assert (done.returncode, text.count("\n"), SECRET in text) == (2, 1, False), text
    assert "$AWS_SESSION_TOKEN: session_token: " in text


@pytest.mark.parametrize("variable", ["DSCACHE_CLIENT_NAME", "LOGNAME"])
def test_a_name_that_is_not_utf_8_is_spelled_out(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, OTHER_BYTES)
    configured = os.environ.get("DSCACHE_CLIENT_NAME", "")
    name = Client(Config("http://127.0.0.1:1", client_name=configured)).name
    assert name.startswith(r"\xff\xfe")
    name.encode()
