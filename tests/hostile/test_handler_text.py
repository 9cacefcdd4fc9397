"""Whatever a handler says, or does to its scratch folder: its requests are answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache.config import Config
from dscache.protocol import layout, markers
from dscache.protocol.manifests import MAX_BYTES, Failure
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache_builder.attempt.bad_samples import LISTED, WITH_TEXT
from support.counting import write_numbers
from support.running import Builder

pytestmark = [pytest.mark.store, pytest.mark.system]
NewBuilder = Callable[..., Builder]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """One sample."""
    return write_numbers(tmp_path / "data" / "raw", 1)


@pytest.fixture
def unruly(new_builder: NewBuilder, raw: Path, tmp_path: Path) -> Callable[..., Builder]:
    """Start a builder for both handlers, with a scratch folder of its own."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def start(**settings: Any) -> Builder:
        source = {"raw": str(raw), "source": "unruly=={version}", **settings}
        datasets = {name: {"handler": name, **source} for name in ("unruly", "plainly")}
        return new_builder(datasets=datasets, scratch=str(scratch), workers=1).start()

    return start


def failure_of(config: Config, spec: Spec) -> dscache.BuildFailed:
    client = dscache.Client(config)
    topic = client.request(spec)
    with pytest.raises(dscache.BuildFailed) as failed:
        client.wait(topic, timeout_s=60.0)
    return failed.value


@pytest.mark.parametrize("handler", ["unruly", "plainly"])
def test_text_that_is_not_unicode(
    handler: str, unruly: Callable[..., Builder], client_config: Config
) -> None:
    builder = unruly()
    failure = failure_of(client_config, Spec.of(handler, "1.0.0", {"does": "surrogate"}))
    assert failure.kind == "handler"
    assert r"caf\udce9.png" in str(failure)
    assert "UnicodeEncodeError" not in builder.text()
    assert builder.stop() == 0


@pytest.mark.parametrize("handler", ["unruly", "plainly"])
def test_ten_megabytes_of_text(
    handler: str, unruly: Callable[..., Builder], client_config: Config, store: Store
) -> None:
    builder = unruly()
    spec = Spec.of(handler, "1.0.0", {"does": "huge"})
    failure = failure_of(client_config, spec)
    assert failure.kind == "handler"
    assert "ValueError: EEE" in str(failure)
    resolved, _ = markers.resolve(store, spec)
    sizes = [entry.size for entry in store.entries(layout.failures_of(resolved.key))]
    assert len(sizes) == 1
    assert sizes[0] < MAX_BYTES[Failure] // 8
    assert len(builder.text()) < 100_000
    assert builder.stop() == 0


@pytest.mark.parametrize("handler", ["unruly", "plainly"])
@pytest.mark.parametrize("does", ["no_scratch", "link_shards"])
def test_a_handler_that_destroys_its_scratch_folder_fails(
    does: str,
    handler: str,
    unruly: Callable[..., Builder],
    client_config: Config,
    tmp_path: Path,
) -> None:
    precious = tmp_path / "scratch" / "precious"
    precious.mkdir(parents=True)
    (precious / f"{handler}-train.tfrecord-00000-of-00001").write_text("somebody else's")
    builder = unruly()
    failure = failure_of(client_config, Spec.of(handler, "1.0.0", {"does": does}))
    assert failure.kind in ("handler", "disk")
    assert builder.stop() == 0
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["precious"]
    assert precious.is_dir()
    assert len(list(precious.iterdir())) == 1


@pytest.mark.parametrize("does", ["no_log", "pipe_log"])
def test_a_handler_without_its_log_is_built(
    does: str, unruly: Callable[..., Builder], client_config: Config
) -> None:
    builder = unruly()
    client = dscache.Client(client_config)
    topic = client.request(Spec.of("unruly", "1.0.0", {"does": does}))
    assert client.wait(topic, timeout_s=60.0)
    assert builder.stop() == 0


def test_bad_samples_with_long_errors(
    unruly: Callable[..., Builder], client_config: Config
) -> None:
    """89 MB of errors: the marker can be read, and the dataset too."""
    builder = unruly(max_bad_samples=100)
    spec = Spec.of("unruly", "1.0.0", {"missing": 89, "error_chars": 1_000_000})
    client = dscache.Client(client_config)
    dataset = client.get(client.wait(client.request(spec), timeout_s=120.0))
    assert [example["text"] for example in dataset] == ["0"]
    assert len(dataset.info["bad_samples"]) == 89
    assert all("BBB" in bad["error"] for bad in dataset.info["bad_samples"])
    assert builder.stop() == 0


def test_more_bad_samples_than_can_be_listed(
    unruly: Callable[..., Builder], client_config: Config, store: Store
) -> None:
    count = LISTED + 500
    builder = unruly(max_bad_samples=count)
    spec = Spec.of("unruly", "1.0.0", {"missing": count, "error_chars": 5, "batch_size": 4_000})
    client = dscache.Client(client_config)
    info = client.get(client.wait(client.request(spec), timeout_s=240.0)).info
    assert len(info["bad_samples"]) == LISTED
    assert info["more_bad_samples"] == 500
    assert sum(bad["error"] != "" for bad in info["bad_samples"]) == WITH_TEXT
    assert builder.stop() == 0
    resolved, _ = markers.resolve(store, spec)
    checkpoint, _ = markers.read_checkpoint(store, resolved.key)
    assert checkpoint is not None
    assert not checkpoint.owner
