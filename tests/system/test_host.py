"""The handler host with real processes, in environments made by uv from this checkout's wheels."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import blake3
import pytest

from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.client import HostClient
from dscache_builder.hosting.messages import Advanced, HostRequest, ShardBuilt
from dscache_sdk.example import decode_example
from dscache_sdk.records import read_records
from support.hosting import built, good, ids
from support.running import idle

pytestmark = pytest.mark.system
PHOTOS = {"image_size": [128, 128], "crop_size": [96, 96], "batch_size": 2}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs, from the wheels of scikit-image and scikit-learn."""
    folder = tmp_path_factory.mktemp("photographs")
    for package, names in {
        "skimage/data": ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg"],
        "sklearn/datasets/images": ["china.jpg", "flower.jpg"],
    }.items():
        top, _, rest = package.partition("/")
        found = __import__(top).__file__
        assert found is not None
        for name in names:
            shutil.copy(Path(found).parent / rest / name, folder)
    return folder


# Photos: what a build says is what the files are.


def test_photos_shards_are_what_they_are_said_to_be(
    pythons: Callable[[str], Path], photographs: Path, request_for: Callable[..., HostRequest]
) -> None:
    request = request_for("photos", photographs, config=PHOTOS, workers=2)
    python = pythons("dataset-handlers")
    with HostClient(python, request, heartbeat=idle) as host:
        description = host.describe()
        plan = host.plan()
        shards = built(host, plan)
        assert description.plain is False
        assert description.config["variations_per_sample"] == 1
        assert "image_size" in json.dumps(host.options())
        assert "image" in description.features["featuresDict"]["features"]
        assert host.features() == description.features
        assert [(s.index, s.name, s.split) for s in shards] == [
            (s.index, s.name, s.split) for s in plan.shards
        ]
        assert sum(shard.samples for shard in plan.shards) == plan.examples == 7
        for shard, planned in zip(shards, plan.shards, strict=True):
            content = shard.path.read_bytes()
            assert shard.size == len(content)
            assert shard.crc32 == zlib.crc32(content)
            assert shard.digest == blake3.blake3(content).hexdigest()
            assert shard.records == len(list(read_records(shard.path))) == planned.examples
            assert shard.bad == []


def test_one_worker_and_two_write_the_same_bytes(
    pythons: Callable[[str], Path], photographs: Path, request_for: Callable[..., HostRequest]
) -> None:
    digests = []
    for workers in (1, 2):
        request = request_for("photos", photographs, config=PHOTOS, workers=workers)
        with HostClient(pythons("dataset-handlers"), request, heartbeat=idle) as host:
            digests.append((host.plan().digest, [shard.digest for shard in built(host)]))
    assert digests[0] == digests[1]


def test_preview_draws_the_first_examples(
    pythons: Callable[[str], Path],
    photographs: Path,
    request_for: Callable[..., HostRequest],
    tmp_path: Path,
) -> None:
    from PIL import Image

    with HostClient(
        pythons("dataset-handlers"),
        request_for("photos", photographs, config=PHOTOS),
        heartbeat=idle,
    ) as host:
        line = host.preview(3, tmp_path / "sheet.png")
        assert line.startswith("3 examples, 96x96x3")
        tried = host.try_samples(2, tmp_path / "sheet.png")
        assert len(tried.seconds) == 2
        assert tried.failed == []
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


# Workers.


def test_two_workers_are_two_processes(troubles: Callable[..., HostClient]) -> None:
    words = dict.fromkeys(good(8), "pid")
    with troubles(words, workers=2, config={"batch_size": 1}) as host:
        shards = built(host)
        records = [decode_example(r) for shard in shards for r in read_records(shard.path)]
        pids = {int(record["pid"][0]) for record in records}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_shards_start_only_while_they_may(troubles: Callable[..., HostClient]) -> None:
    with troubles(good(8)) as host:
        plan = host.plan()
        assert len(plan.shards) == 2
        allowed: list[bool] = []
        events = host.build([1, 0], lambda: bool(allowed))
        for _ in range(2):
            assert not isinstance(next(events), ShardBuilt)
        allowed.append(True)
        order = [event.index for event in events if isinstance(event, ShardBuilt)]
        assert order == [1, 0]


def test_progress_never_exceeds_the_plan(troubles: Callable[..., HostClient]) -> None:
    with troubles(good(8)) as host:
        plan = host.plan()
        told = [
            e.examples_done for e in host.build([0, 1], lambda: True) if isinstance(e, Advanced)
        ]
    assert told and told == sorted(told)
    assert told[-1] <= plan.examples


def test_prints_of_a_handler_go_to_the_log(troubles: Callable[..., HostClient]) -> None:
    with troubles({"a.txt": "chatter", "b.txt": "good"}) as host:
        assert ids(built(host)) == ["a.txt", "b.txt"]
        assert "a word on standard output" in host.log_tail()


def test_handlers_get_a_scrubbed_environment(
    pythons: Callable[[str], Path],
    troubles: Callable[..., HostClient],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pythons("troubles")
    for name in ("AWS_SECRET_ACCESS_KEY", "DSCACHE_SECRET_KEY", "HTTPS_PROXY", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret")
    with troubles({"a.txt": "environment"}) as host:
        (shard,) = built(host)
        (record,) = read_records(shard.path)
    text = decode_example(record)["environment"][0].decode()
    variables = dict(line.split("=", 1) for line in text.splitlines())
    assert "secret" not in variables.values()
    assert variables["OMP_NUM_THREADS"] == "1"
    assert Path(variables["HOME"]).is_relative_to(tmp_path)
    assert variables["TMPDIR"] == variables["HOME"]


# Plain handlers.


def test_a_plain_handler_runs_as_it_is(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> None:
    request = request_for("numbers", tmp_path, config={"count": 5})
    with HostClient(pythons("plain-numbers"), request, heartbeat=idle) as host:
        description = host.describe()
        plan = host.plan()
        assert (description.plain, description.config) == (True, {"count": 5})
        assert host.options() == {"count": {"type": "int", "default": 3}}
        assert (plan.shards, plan.resumable, plan.examples) == ([], False, 0)
        shards = built(host, plan)
        assert [(s.index, s.name, s.split, s.records) for s in shards] == [
            (0, "numbers-train.tfrecord-00000-of-00001", "train", 5),
            (1, "numbers-val.tfrecord-00000-of-00001", "val", 5),
        ]
        for shard in shards:
            content = shard.path.read_bytes()
            assert shard.crc32 == zlib.crc32(content)
            assert shard.digest == blake3.blake3(content).hexdigest()
            assert len(list(read_records(shard.path))) == 5
        assert "number" in host.features()["featuresDict"]["features"]


def test_a_plain_handler_refuses_what_it_does_not_name(
    pythons: Callable[[str], Path], request_for: Callable[..., HostRequest], tmp_path: Path
) -> None:
    request = request_for("numbers", tmp_path, config={"cuont": 5})
    host = HostClient(pythons("plain-numbers"), request, heartbeat=idle)
    with host, pytest.raises(HandlerFailure, match="count") as raised:
        host.describe()
    assert raised.value.kind == "options"
