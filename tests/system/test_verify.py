"""`dscache verify` and `dscache-builder verify` on real stores, builders and damaged objects."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dscache.config import Config
from dscache.protocol import layout, manifests
from dscache.spec import load_spec
from dscache.store.s3 import Store
from support.datasets import live_of
from support.packages import HandlerPackage
from support.running import Builder, Ran, dscache, run_builder, write_spec

NewBuilder = Callable[..., Builder]

DICE = HandlerPackage(
    name="dice",
    handlers={"dice": "Dice"},
    code="""
    import os

    import msgspec
    from dscache_sdk import DatasetHandler, Sample, Tensor, Text


    class Dice(DatasetHandler, name="dice"):
        class Options(msgspec.Struct, kw_only=True):
            batch_size: int = 2
            seeded: bool = True
            bytes: int = 5000

        features = {"id": Text(), "noise": Tensor((None,), "uint8")}

        def samples(self):
            for name in self.raw.files("*.txt"):
                yield Sample(name)

        def load(self, sample):
            return (self.raw / sample.id).read_text()

        def example(self, text, sample, rng):
            noise = rng.integers(0, 256, self.options.bytes, dtype="uint8")
            if not self.options.seeded:
                noise[0:8] = list(os.urandom(8))
            return {"id": f"{sample.id} {text}", "noise": noise}
    """,
)


@pytest.fixture(scope="session")
def dice_wheel(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheelhouse with the package of this module in it."""
    DICE.wheel(tmp_path_factory.mktemp("dice"), wheelhouse)
    return wheelhouse


@pytest.fixture
def built(
    dice_wheel: Path, new_builder: NewBuilder, client_config: Config, tmp_path: Path
) -> Callable[..., tuple[Builder, str]]:
    """Build a dataset of six samples in three shards: (its builder, its key)."""
    raw = tmp_path / "dice"
    raw.mkdir()
    for number in range(6):
        (raw / f"{number}.txt").write_text(str(number))
    datasets = {"dice": {"handler": "dice", "raw": str(raw), "source": "dice=={version}"}}

    def build(**options: Any) -> tuple[Builder, str]:
        every = {"batch_size": 2, "seeded": True, "bytes": 5000, **options}
        cfg = write_spec(tmp_path / "dice.json", "dice", **every)
        assert dscache(client_config, "request", str(cfg)).code == 0
        builder = new_builder(datasets=datasets).start("--once")
        assert builder.wait() == 0, builder.text()
        return builder, load_spec(cfg).key

    return build


def verify(config: Config, key: str) -> tuple[Ran, list[str]]:
    """`dscache verify --json`: (the run, its problems as lines)."""
    ran = dscache(config, "verify", key, "--json")
    lines = [f"{one['where']}: {one['problem']}" for one in json.loads(ran.out)["problems"]]
    return ran, lines


def test_a_healthy_dataset(built: Any, client_config: Config, store: Store) -> None:
    _, key = built()
    ran = dscache(client_config, "verify", key)
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.startswith(f"{key}: ok; 3 shards, 6 records, ")
    report = json.loads(dscache(client_config, "verify", key, "--json").out)
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["bytes"] == live_of(store, key).zip_size
    assert not list(client_config.home.glob("datasets/*")), "nothing was kept"


def test_a_flipped_byte_in_a_record_is_named(
    built: Any, client_config: Config, store: Store
) -> None:
    _, key = built()
    shard = live_of(store, key).shards[1]
    _damage(store, key, shard.offset + shard.size - 500)
    ran, lines = verify(client_config, key)
    assert ran.code == 8
    assert any(line.startswith(f"datasets/{key}.zip: is not the object") for line in lines)
    of_shard = [line for line in lines if line.startswith(f"{shard.name}: ")]
    assert [line.split(": ", 1)[1].split(" ")[0] for line in of_shard] == [
        "CRC-32", "BLAKE3", "record",
    ]  # fmt: skip
    assert "record 1 at byte" in of_shard[2]
    assert "the checksum of its data differs" in of_shard[2]
    assert len(lines) == 4
    told = dscache(client_config, "verify", key)
    assert told.code == 8
    assert "4 problems" in told.out.splitlines()[-1]


def test_damage_to_the_structure_is_named(built: Any, client_config: Config, store: Store) -> None:
    _, key = built()
    live = live_of(store, key)
    body = _body(store, key)
    tail = live.members[-1].offset + live.members[-1].size
    for at, expected in (
        (0, f"{live.members[0].name}: local header: not found at the expected offset"),
        (14, f"{live.members[0].name}: local header: CRC-32"),
        (tail + 16, f"central directory: {live.members[0].name}: CRC-32"),
        (len(body) - 22, "central directory: no end record at the end of the zip"),
        (live.shards[2].offset, f"{live.shards[2].name}: record 0 at byte 0: the checksum of its"),
    ):
        _damage(store, key, at, body)
        ran, lines = verify(client_config, key)
        assert ran.code == 8
        assert any(expected in line for line in lines), (at, lines)
    store.put(live.zip_key, body[: live.shards[2].offset + 100], content_type="application/zip")
    ran, lines = verify(client_config, key)
    assert ran.code == 8
    assert any(f"{live.shards[2].name}: the zip ends after 100 of its" in line for line in lines)
    store.delete(live.zip_key)
    ran, lines = verify(client_config, key)
    assert (ran.code, lines) == (8, [f"{live.zip_key}: is not in the bucket"])


def test_documents_and_counts_must_agree_with_the_marker(
    built: Any, client_config: Config, store: Store
) -> None:
    _, key = built()
    live = live_of(store, key)
    live.shards[0].records += 1
    live.features = {**live.features, "pythonClassName": "other"}
    store.put(layout.ready(key), manifests.encode(live))
    ran, lines = verify(client_config, key)
    assert ran.code == 8
    assert lines[0] == f"{live.shards[0].name}: 2 records instead of 3"
    assert lines[1].startswith("dataset_info.json: splits[0].shardLengths[0] is ")
    assert lines[2].startswith("features.json: pythonClassName is ")
    assert len(lines) == 3


def test_rebuild_shard_of_a_repeatable_handler(built: Any, client_config: Config) -> None:
    builder, key = built()
    for which in ("0", "2", "random"):
        ran = run_builder(builder, "verify", key, "--rebuild-shard", which)
        assert ran.code == 0, ran.out + ran.err
        assert "the same bytes" in ran.out
    wrong = run_builder(builder, "verify", key, "--rebuild-shard", "3")
    assert wrong.code == 2
    assert "give 0 to 2" in wrong.err
    there = dscache(client_config, "verify", key, "--rebuild-shard", "1")
    assert there.code == 2
    assert f"dscache-builder --config builder.toml verify {key} --rebuild-shard 1" in there.err


def test_rebuild_shard_finds_an_unseeded_handler_out(built: Any) -> None:
    builder, key = built(seeded=False)
    ran = run_builder(builder, "verify", key, "--rebuild-shard", "random")
    assert ran.code == 8, ran.out + ran.err
    assert "the handler is not repeatable" in ran.out
    document = json.loads(run_builder(builder, "verify", key, "--rebuild-shard", "1", "--json").out)
    assert document["same"] is False
    assert document["stored"] != document["built"]


def test_rebuild_shard_after_the_raw_data_changed(built: Any, tmp_path: Path) -> None:
    builder, key = built()
    for number in range(6):
        (tmp_path / "dice" / f"{number}.txt").write_text("changed")
    ran = run_builder(builder, "verify", key, "--rebuild-shard", "0")
    assert ran.code == 3, ran.out + ran.err
    assert "the raw data has changed since" in ran.out
    assert "not repeatable" not in ran.out


def test_a_stored_dataset_is_a_plain_zip(built: Any, store: Store) -> None:
    """What verify accepts, Python's zipfile accepts too: the same members, the same bytes."""
    _, key = built()
    with zipfile.ZipFile(BytesIO(_body(store, key))) as archive:
        assert archive.testzip() is None
        sums = {info.filename: info.CRC for info in archive.infolist()}
    assert sums == {member.name: member.crc32 for member in live_of(store, key).members}


def _body(store: Store, key: str) -> bytes:
    found = store.get(layout.archive(key, 0))
    assert found is not None
    return found.body


def _damage(store: Store, key: str, at: int, body: bytes | None = None) -> None:
    """Put the zip again under its name with one bit at `at` changed."""
    changed = bytearray(_body(store, key) if body is None else body)
    changed[at] ^= 1
    store.put(layout.archive(key, 0), bytes(changed), content_type="application/zip")
