"""Raw data that changes while shards are made from it: no dataset is a mixture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dscache
from dscache import Dataset
from dscache.config import Config
from dscache.protocol import markers
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache_builder.hosting.host.raw_revision import raw_revision
from support.counting import write_numbers
from support.running import Builder, wait_until

pytestmark = [pytest.mark.store, pytest.mark.system]
HANDLERS = ["unruly", "plainly"]
Building = Callable[[], object]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Four samples."""
    return write_numbers(tmp_path / "data" / "raw", 4)


@pytest.fixture
def builder(new_builder: Callable[..., Builder], raw: Path) -> Iterator[Builder]:
    source = {"raw": str(raw), "source": "unruly=={version}"}
    datasets = {name: {"handler": name, **source} for name in HANDLERS}
    builder = new_builder(datasets=datasets, workers=1).start()
    yield builder
    assert builder.stop() == 0


def change_while_building(
    config: Config, spec: Spec, raw: Path, change: Callable[[], object]
) -> dscache.Dataset:
    """Request the dataset; change the raw data when loading has begun; then let it go on."""
    client = dscache.Client(config)
    topic = client.request(spec)
    wait_until((raw.parent / "begun").exists, "loading has begun")
    change()
    (raw.parent / "go").touch()
    return client.get(client.wait(topic, timeout_s=90.0))


def texts(dataset: Dataset) -> list[str]:
    return sorted(example["text"] for example in dataset)


def waiting(handler: str, revision: str | None = None) -> Spec:
    more = {"batch_size": 1} if handler == "unruly" else {}
    return Spec.of(handler, "1.0.0", {"waits": True, **more}, revision)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_pinned_revision_is_never_published_with_other_bytes(
    handler: str, builder: Builder, client_config: Config, store: Store, raw: Path
) -> None:
    pinned = waiting(handler, raw_revision(raw))
    with pytest.raises(dscache.BuildFailed, match="dataset_revision pins the raw data") as failed:
        change_while_building(client_config, pinned, raw, lambda: write(raw, "changed"))
    assert failed.value.kind == "raw-data"
    assert "the raw data changed during the build (4 files: 000.txt, " in builder.text()
    resolved, ready = markers.resolve(store, pinned)
    assert ready is None
    checkpoint, _ = markers.read_checkpoint(store, resolved.key)
    assert checkpoint is not None
    assert not checkpoint.upload_id


def test_data_that_is_restored_with_its_old_times_makes_no_mixture(
    builder: Builder, client_config: Config, raw: Path
) -> None:
    before = {path: path.stat() for path in raw.iterdir()}
    pinned = waiting("unruly", raw_revision(raw))
    with pytest.raises(dscache.BuildFailed):
        change_while_building(client_config, pinned, raw, lambda: write(raw, "x"))
    for number, (path, status) in enumerate(sorted(before.items())):
        path.write_text(str(number))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    client = dscache.Client(client_config)
    dataset = client.get(client.wait(client.request(pinned), timeout_s=90.0))
    assert texts(dataset) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_without_a_pin_the_dataset_is_made_from_the_new_data(
    handler: str, builder: Builder, client_config: Config, raw: Path
) -> None:
    dataset = change_while_building(
        client_config, waiting(handler), raw, lambda: write(raw, "changed")
    )
    assert texts(dataset) == [f"changed {number}" for number in range(4)]
    assert dataset.info["raw_revision"] == raw_revision(raw)


def test_files_that_no_sample_declares_do_not_matter(
    builder: Builder, client_config: Config, raw: Path
) -> None:
    """A handler's own index, or pictures that arrive while others are read."""
    revision = raw_revision(raw)
    dataset = change_while_building(
        client_config, waiting("unruly"), raw, lambda: (raw / "later.txt").write_text("new")
    )
    assert texts(dataset) == ["0", "1", "2", "3"]
    assert dataset.info["raw_revision"] == revision
    assert "changed during the build" not in builder.text()


def test_with_a_pin_any_other_file_matters(
    builder: Builder, client_config: Config, raw: Path
) -> None:
    pinned = waiting("unruly", raw_revision(raw))
    with pytest.raises(dscache.BuildFailed) as failed:
        change_while_building(
            client_config, pinned, raw, lambda: (raw / "later.txt").write_text("new")
        )
    assert failed.value.kind == "raw-data"


def test_data_that_never_rests_fails_and_names_files(
    builder: Builder, client_config: Config, raw: Path
) -> None:
    """`touches` changes a sample whenever it is loaded."""
    client = dscache.Client(client_config)
    topic = client.request(Spec.of("unruly", "1.0.0", {"does": "touches"}))
    with pytest.raises(dscache.BuildFailed, match=r"changed during the build \(1 file: ") as failed:
        client.wait(topic, timeout_s=90.0)
    assert failed.value.kind == "raw-data"
    assert builder.text().count("retrying in") == 3


def write(raw: Path, word: str) -> None:
    for number in range(4):
        (raw / f"{number:03d}.txt").write_text(f"{word} {number}")
