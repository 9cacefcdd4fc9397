"""The decoders of `dscache_builder`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dscache.errors import ConfigError
from dscache.protocol.manifests import BadSample
from dscache_builder import config, identity
from dscache_builder.environments import sources
from dscache_builder.failure import EnvironmentFailed, HandlerFailure
from dscache_builder.hosting import messages
from dscache_builder.hosting.host.channel import LineReader
from fuzz.inputs import FOLDER, in_file, text
from fuzz.running import Decoder

BUILDER_TOML = b"""
state = "state"
find_links = ["wheels", "https://index.example/"]
workers = 8
reconcile_s = 30.0
[store]
endpoint = "http://127.0.0.1:9000"
bucket = "dscache"
access_key = "a"
secret_key = "s"
[datasets.photos]
handler = "photos"
raw = "/srv/raw/photos"
source = "dataset-handlers=={version}"
max_bad_samples = 0.01
memory_bytes = 1000000000
"""
PINS = b"""# comment
blake3==1.0.8 \\
    --hash=sha256:0000
dataset-handlers @ file:///tmp/x.whl
"""
REFUSAL = (
    b"  x No solution found when resolving dependencies:\n  `-> Because there is no version of "
    b"dataset-handlers==9.9.9 and you require dataset-handlers==9.9.9, we can conclude\n"
    b"error: only dataset-handlers==1.0.0 and dataset-handlers<=2 and you require x\ncause: a\n"
)
TAGS = b"0123\trefs/tags/v1\n4567\trefs/tags/v1^{}\n"
BAD: dict[str, Any] = {"sample": "a.jpg", "error": "OSError: x", "traceback": "t"}
MESSAGES: tuple[dict[str, Any], ...] = (
    {"event": "failure", "kind": "handler", "message": "m", "sample": "s", "traceback": "t"},
    {"event": "options", "options": {"a": 1}},
    {"event": "described", "plain": False, "config": {}, "features": {}},
    {"event": "raw-changes", "same": False, "changed": ["a"], "files": 1},
    {"event": "workers", "workers": 1, "message": "a worker was killed"},
    {
        "event": "planned", "digest": "d", "examples": 3, "raw_revision": "r", "resumable": True,
        "shards": [[0, "photos-train.tfrecord-00000-of-00001", "train", 2, 3]],
    },
    {"event": "features", "features": {"featuresDict": {}}},
    {"event": "advanced", "done": 3},
    {"event": "done"},
    {
        "event": "built", "index": 0, "name": "photos-train.tfrecord-00000-of-00001",
        "split": "train", "size": 10, "crc32": 7, "digest": "0" * 64, "records": 3, "bad": [BAD],
        "features": {"a": 1},
    },
    {"event": "previewed", "line": "l", "seconds": {"a.jpg": 0.5}, "failed": [BAD]},
)  # fmt: skip


def _line(data: bytes) -> None:
    """What the builder makes of lines that a host wrote into the pipe."""
    read, write = os.pipe()
    reader = LineReader(read)
    try:
        for at in range(0, len(data), 1 << 15):
            os.write(write, data[at : at + (1 << 15)])
            _take(reader)
        os.write(write, b"\n")
        _take(reader)
    finally:
        os.close(read)
        os.close(write)


def _take(reader: LineReader) -> None:
    for message in messages.parse_messages(reader):
        if isinstance(message, messages.Built):
            built = messages.shard_built(message, FOLDER)
            assert built.path.parent == FOLDER / messages.SHARDS_FOLDER
            assert all(isinstance(bad, BadSample) for bad in built.bad)
        if isinstance(message, messages.Planned):
            messages.plan_summary(message)


def _builder_file(data: bytes) -> None:
    path = in_file("builder/builder.toml", data)
    loaded = config.load(path)
    loaded.store_config({})
    for source in loaded.datasets.values():
        source.raw.is_dir()
        try:
            sources.parse_source(source.source, "1.0.0")
        except EnvironmentFailed:
            continue


def _identity(data: bytes) -> None:
    in_file("identity/builder.id", data)
    with identity.claimed_state(FOLDER / "identity") as builder_id:
        assert builder_id.isascii()


def _tool_output(data: bytes) -> None:
    output = text(data)
    sources.split_pins(output)
    sources.without_handler(output, "/tmp/x.whl", "file:///tmp/x.whl")
    sources.parse_tags(output)
    sources.missing_version(output)
    sources.one_line(output)
    versions = sources.available("dataset-handlers", output, [Path("a-1.0-py3-none-any.whl")])
    sources.listed(versions)
    sources.wheel_parts(Path(output[:200].replace("\0", "")))


def _source(data: bytes) -> None:
    template, _, version = text(data).partition(" ")
    source = sources.parse_source(template, version)
    assert sources.locked_source(source.text).text == source.text
    sources.same_version(template, version)


def table() -> list[Decoder]:
    """The decoders of `dscache_builder`."""
    return [
        Decoder(
            "host-lines", _line, (HandlerFailure,),
            tuple(json.dumps(message).encode() for message in MESSAGES), "json",
            ("dscache_builder.hosting.messages.parse_messages",),
        ),
        Decoder(
            "builder-file", _builder_file, (ConfigError,), (BUILDER_TOML,), "toml",
            ("dscache_builder.config.load",),
        ),
        Decoder("builder-id", _identity, (ConfigError,), (b"0123456789abcdef",), "text", ()),
        Decoder(
            "tool-output", _tool_output, (), (PINS, REFUSAL, TAGS), "text",
            ("dscache_builder.environments.sources.parse_tags",),
        ),
        Decoder(
            "handler-source", _source, (EnvironmentFailed,),
            (
                b"dataset-handlers=={version} 1.0.0", b"git+https://h.example/a@{version} v1",
                b"/srv/handlers 1.0.0", b"~/handlers 1.0.0",
            ),
            "text", ("dscache_builder.environments.sources.parse_source",),
        ),
    ]  # fmt: skip
