"""What a handler's host or a damaged file says is refused with the builder's errors.

Each of these raised another exception once. `tests/fuzz` looks for more.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import ConfigError
from dscache_builder import config
from dscache_builder.environments.sources import (
    available,
    locked_source,
    parse_source,
    same_version,
)
from dscache_builder.failure import EnvironmentFailed, HandlerFailure
from dscache_builder.hosting import messages
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.host import channel
from dscache_builder.hosting.messages import Built, HostRequest
from dscache_builder.identity import claimed_state

Start = Callable[[str], HostClient]
BUILT: dict[str, Any] = {
    "event": "built", "index": 0, "name": "a-train.tfrecord-00000-of-00001", "split": "train",
    "size": 1, "crc32": 1, "digest": "0" * 64, "records": 1, "bad": [],
}  # fmt: skip


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a host that is a program of the test's own: it writes what it wants."""

    def run(script: str) -> HostClient:
        program = tmp_path / "python"
        program.write_text(f'#!/bin/bash\nexec 3>"/proc/self/fd/$5"\n{script}\nsleep 60\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        request = HostRequest(
            "a", "a", {}, tmp_path / "raw", tmp_path / "scratch", tmp_path / "handler.log"
        )
        return HostClient(program, request, heartbeat=lambda: None)

    return run


def says(*documents: Any) -> str:
    """A script that writes these lines."""
    lines = [
        document if isinstance(document, str) else json.dumps(document) for document in documents
    ]
    return "\n".join(f"cat >&3 <<'END'\n{line}\nEND" for line in lines)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"event": "nonsense"},
        {"event": "\ud800"},
        {"event": ["failure"]},
        {"event": "failure"},
        {"event": "failure", "kind": "nonsense", "message": "m"},
        {"event": "described", "plain": 1, "config": {}, "features": {}},
        {"event": "options", "options": []},
        {"event": "planned", "digest": "d", "examples": 1, "shards": [[0]], "raw_revision": "",
         "resumable": True},
        {"event": "features", "features": json.loads("[" * 500 + "]" * 500)},
        {"event": "features", "features": {"a": json.loads("[" * 100 + "]" * 100)}},
        {"event": "advanced", "done": -1},
        {"event": "advanced", "done": 2**60},
        {**BUILT, "size": -1},
        {**BUILT, "crc32": 2**32},
        {**BUILT, "digest": "d"},
        {**BUILT, "split": "a b"},
        {**BUILT, "bad": [{"sample": 1}]},
        {**BUILT, "bad": [{"sample": "a", "error": "e", "repeatable": "yes"}]},
    ],
    ids=range(19),
)  # fmt: skip
def test_a_host_that_sends_nonsense_fails(document: Any, start: Start) -> None:
    with (
        start(says(document)) as host,
        pytest.raises(HandlerFailure, match="sent something that is no message") as caught,
    ):
        host.describe()
    assert caught.value.kind == "handler"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../a", "/a", "a\x1b[2J", "a\0"])
def test_a_shard_with_a_name_that_no_file_has(name: str, tmp_path: Path) -> None:
    built = Built(0, name, "train", 1, 1, "0" * 64, 1)
    with pytest.raises(HandlerFailure, match="a shard with the name"):
        messages.shard_built(built, tmp_path)


def test_lines_that_are_no_objects_are_dropped(start: Start) -> None:
    """A host that dies within a line leaves such ones."""
    described = {"event": "described", "plain": False, "config": {}, "features": {}}
    torn = ["torn{", "[1]", "9" * 5000, "[" * 100_000, "\x00"]
    with start(says(*torn, described)) as host:
        assert not host.describe().plain


def test_halves_of_pairs_are_spelled_out(start: Start) -> None:
    failure = {"event": "failure", "kind": "handler", "message": "a\udcffb", "sample": "😀"}
    with (
        start(says(failure)) as host,
        pytest.raises(HandlerFailure, match=r"^a\\udcffb$") as caught,
    ):
        host.describe()
    assert caught.value.sample == "😀"


def test_a_line_that_does_not_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "LINE_BYTES", 1 << 20)
    with (
        start("yes x | tr -d '\\n' >&3") as host,
        pytest.raises(HandlerFailure, match="a message of more than 1 MiB"),
    ):
        host.describe()


SECTION = '\n[datasets.a]\nhandler = "a"\nraw = "/raw"\nsource = "a=={version}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers = " + "9" * 5000, "not TOML: .*4300"),
        ("find_links = " + "[" * 5000, "nested too deeply"),
        ("state = -1", "Expected `str`, got `int`"),
        ('state = "~nobody-there/x"', "is not a path"),
        ('state = "a\\u0000b"', "is not a path"),
        (f'state = "{"x" * 300}"', "is not a path: .*too long"),
        ('state = "s"\nfind_links = ["~nobody-there"]', "is not a path"),
        ("workers = 99999999999999999999", "workers: 99999999999999999999 is more than 4096"),
        ("reconcile_s = nan", "reconcile_s: nan is more than"),
        ("environments_keep_days = inf", "environments_keep_days: inf is more than"),
        ("#\xff", "cannot be read"),
        ("a." * 250_000 + "a = 1", "a line of more than 8 KiB"),
    ],
    ids=range(12),
)
def test_a_builder_file_that_cannot_be_used(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "builder.toml"
    state = "" if "state" in text else 'state = "s"\n'
    path.write_text(f"{state}{text}{SECTION}", encoding="latin-1")
    with pytest.raises(ConfigError, match=said):
        config.load(path)


@pytest.mark.parametrize(
    "setting",
    ["max_bad_samples = nan", "sample_seconds = nan", "memory_bytes = 99999999999999999999"],
)
def test_limits_that_are_none(setting: str, tmp_path: Path) -> None:
    path = tmp_path / "builder.toml"
    path.write_text(f'state = "s"\n{SECTION}{setting}\n')
    with pytest.raises(ConfigError, match=rf"\[datasets\.a\]: {setting.split()[0]}: "):
        config.load(path)


@pytest.mark.parametrize(("name", "value"), [("secret_key", "a\n"), ("bucket", "a b")])
def test_store_settings_that_cannot_be_sent(name: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "builder.toml"
    path.write_text(f'state = "s"\n[store]\n{name} = {json.dumps(value)}\n{SECTION}')
    message = rf"\[store\] of builder\.toml.*{name}: (expected|has a space)"
    with pytest.raises(ConfigError, match=message):
        config.load(path).store_config({})


@pytest.mark.parametrize("content", [b"\xff", b"a b", b"a" * 100, b"a\nb"])
def test_an_id_that_is_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "builder.id").write_bytes(content)
    with (
        pytest.raises(ConfigError, match=r"builder\.id: damaged; delete it"),
        claimed_state(tmp_path),
    ):
        pass


def test_an_id_that_is_empty_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "builder.id").write_bytes(b"")
    with claimed_state(tmp_path) as made:
        assert len(made) == 16


def test_a_source_in_the_home_of_nobody() -> None:
    with pytest.raises(EnvironmentFailed, match="write the whole path"):
        parse_source("~nobody-there/x", "1")
    for text in ("~nobody-there", "~a\0b"):
        with pytest.raises(EnvironmentFailed, match="write the whole path"):
            locked_source(text)


def test_versions_of_many_digits_are_no_versions() -> None:
    digits = "9" * 5000
    assert available("a", f"only a=={digits} and you require a", []) == [digits]
    assert not same_version(digits, "1.0")
