"""What goes wrong, and how it is told: one clear line, its exit code, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.protocol import layout, manifests, markers
from dscache.protocol.manifests import Failure, Live, Request
from dscache.spec import Spec, load_spec
from dscache.store.s3 import Store
from support.running import Builder, dscache, start_dscache, wait_until, write_spec
from support.troubles import write_samples

NewBuilder = Callable[..., Builder]


def test_a_handler_that_fails(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path, numbers: Path
) -> None:
    """Exit 3 with the remote traceback and the sample; again without --retry; mended with it."""
    (numbers / "003.txt").write_text("not a number")
    new_builder().start()
    cfg = write_spec(tmp_path / "c.json", "counting")
    first = dscache(client_config, "get", str(cfg))
    assert (first.code, first.out) == (3, "")
    assert "003.txt" in first.err
    assert "ValueError: invalid literal for int()" in first.err
    assert "Traceback" in first.err

    earlier = dscache(client_config, "get", str(cfg))
    assert earlier.code == 3
    assert "failed earlier" in earlier.err
    assert "--retry" in earlier.err
    assert not list(store.entries(layout.REQUESTS)), "an earlier failure asks for nothing"

    (numbers / "003.txt").write_text("3")
    mended = dscache(client_config, "get", "--retry", str(cfg))
    assert mended.code == 0, mended.err
    status = dscache(client_config, "status", str(cfg), "--json")
    assert json.loads(status.out)["state"] == "ready"


def test_bad_samples_within_the_builders_limit(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path, numbers: Path
) -> None:
    (numbers / "003.txt").write_text("not a number")
    datasets = {
        "counting": {
            "handler": "counting", "raw": str(numbers), "source": "counting=={version}",
            "max_bad_samples": 1,
        },
    }  # fmt: skip
    new_builder(datasets=datasets).start()
    cfg = write_spec(tmp_path / "c.json", "counting")
    assert dscache(client_config, "get", str(cfg)).code == 0
    shown = json.loads(dscache(client_config, "show", str(cfg), "--json").out)
    assert shown["examples"] == 5
    assert [bad["sample"] for bad in shown["bad_samples"]] == ["003.txt"]


@pytest.mark.parametrize(
    ("name", "words", "repeatable"),
    [
        ("troubles", {}, True),
        ("troubles", {"bad.txt": "raises"}, True),
        ("troubles", {"bad.txt": "hang"}, False),
        ("troubles", {"bad.txt": "segfault"}, False),
        ("numbers", {}, False),
    ],
    ids=["all samples", "a sample that raises", "a time limit", "a killed worker", "plain"],
)
def test_the_marker_states_whether_another_build_gives_the_same_bytes(
    new_builder: NewBuilder,
    client_config: Config,
    store: Store,
    tmp_path: Path,
    name: str,
    words: dict[str, str],
    repeatable: bool,
) -> None:
    raw = write_samples(tmp_path / "raw", {"good.txt": "good", **words})
    package = "plain-numbers" if name == "numbers" else name
    datasets = {
        name: {
            "handler": name, "raw": str(raw), "source": f"{package}=={{version}}",
            "max_bad_samples": 1, "sample_seconds": 1.0,
        },
    }  # fmt: skip
    cfg = write_spec(tmp_path / "c.json", name)
    assert dscache(client_config, "request", str(cfg)).code == 0
    builder = new_builder(datasets=datasets).start("--once")
    assert builder.wait() == 0, builder.text()
    _, live = markers.resolve(store, load_spec(cfg))
    assert isinstance(live, Live)
    assert [bad.sample for bad in live.bad_samples] == list(words)
    assert live.repeatable is repeatable


@pytest.mark.parametrize(
    ("name", "version", "options", "words"),
    [
        ("nothing", "1.0.0", {}, ["'nothing'", "counting", "builder.toml"]),
        ("counting", "9.9.9", {}, ["counting==9.9.9", "1.0.0"]),
        ("counting", "1.0.0", {"paddding": 1}, ["paddding", "padding"]),
        ("counting", "1.0.0", {"padding": "x"}, ["padding", "int"]),
    ],
)
def test_what_the_builder_refuses(
    new_builder: NewBuilder,
    client_config: Config,
    tmp_path: Path,
    name: str,
    version: str,
    options: dict[str, object],
    words: list[str],
) -> None:
    new_builder().start()
    cfg = write_spec(tmp_path / "c.json", name, version, **options)
    ran = dscache(client_config, "get", str(cfg))
    assert (ran.code, ran.out) == (3, "")
    last = ran.err.strip().splitlines()[-1]
    for word in words:
        assert word in last
    assert not client_config.home.joinpath("datasets").exists()


def test_no_raw_data(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path, numbers: Path
) -> None:
    for file in numbers.iterdir():
        file.unlink()
    new_builder().start()
    ran = dscache(client_config, "get", str(write_spec(tmp_path / "c.json", "counting")))
    assert ran.code == 3
    assert "raw-data" in ran.err
    numbers.rmdir()
    ran = dscache(client_config, "get", "--retry", str(tmp_path / "c.json"))
    assert ran.code == 3
    assert "is not a folder on the builder" in ran.err


def test_a_request_under_another_keys_name_is_not_built(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path
) -> None:
    honest = load_spec(write_spec(tmp_path / "c.json", "counting"))
    other = Spec.of("counting", "1.0.0", {"padding": 77})
    request = Request(spec=other, nonce="forged", client="somebody", requested_at=0.0)
    store.put(layout.request(honest.key, "forged"), manifests.encode(request))
    new_builder().start()
    name = layout.failed(honest.key, "forged")
    found = wait_until(lambda: store.get(name), "a failed marker")
    failure = manifests.decode(found.body, Failure, where=name)
    assert failure.kind == "request"
    assert "but its spec has key" in failure.message
    wait_until(lambda: not list(store.entries(layout.REQUESTS)), "the request is deleted")
    assert store.get(layout.ready(other.key)) is None


def test_cancel_stops_a_build_nobody_else_waits_for(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path, numbers: Path
) -> None:
    (numbers / "000.hold").touch()
    cfg = write_spec(tmp_path / "c.json", "counting", batch_size=1, padding=0, limit=1000)
    new_builder().start()
    client = start_dscache(client_config, "get", str(cfg))
    wait_until(lambda: (numbers / "loads.log").exists(), "build begun")
    assert dscache(client_config, "cancel", str(cfg)).code == 0
    _, err = client.communicate(timeout=60)
    assert client.returncode == 3
    assert "cancelled by" in err
    wait_until(lambda: not list(store.entries(layout.REQUESTS)), "requests and cancels are gone")
    (numbers / "000.hold").unlink()
    again = dscache(client_config, "get", str(cfg))
    assert again.code == 0, "a cancel is no failure that stands in the way"


def test_cancel_spares_a_build_others_wait_for(
    new_builder: NewBuilder, client_config: Config, tmp_path: Path, numbers: Path
) -> None:
    (numbers / "000.hold").touch()
    cfg = write_spec(tmp_path / "c.json", "counting", batch_size=1, padding=0, limit=1000)
    new_builder().start()
    names = {"one": "one@there", "two": "two@there"}
    clients = {
        name: start_dscache(
            client_config, "get", str(cfg),
            DSCACHE_CLIENT_NAME=who, DSCACHE_HOME=str(client_config.home / name),
        )
        for name, who in names.items()
    }  # fmt: skip
    wait_until(lambda: (numbers / "loads.log").exists(), "build begun")
    key = load_spec(cfg).key
    admin = dscache(client_config, "status", key, "--json")
    assert json.loads(admin.out)["requests"] == 2
    assert dscache(client_config, "cancel", str(cfg), DSCACHE_CLIENT_NAME="one@there").code == 0
    (numbers / "000.hold").unlink()
    for client in clients.values():
        _, err = client.communicate(timeout=60)
        assert client.returncode == 0, err


def test_timeout_and_no_build(client_config: Config, tmp_path: Path, store: Store) -> None:
    cfg = write_spec(tmp_path / "c.json", "counting")
    ran = dscache(client_config, "get", "--no-build", str(cfg))
    assert (ran.code, ran.out) == (5, "")
    assert "--no-build" in ran.err
    assert not list(store.entries(layout.REQUESTS))
    ran = dscache(client_config, "get", "--timeout", "0.5", str(cfg))
    assert (ran.code, ran.out) == (4, "")
    assert "no builder has begun it" in ran.err
    assert len(list(store.entries(layout.REQUESTS))) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["no such file"]),
        ("{", ["not JSON", "line 1"]),
        ('{"dataset_name": "a"}', ["handler_version", "missing"]),
        ('{"dataset_name": "A b", "handler_version": "1", "dataset_config": {}}', ["dataset_name"]),
        ('{"dataset_name": "a", "handler_version": "1", "dataset_config": {}, "x": 1}', ["'x'"]),
        (
            '{"dataset_name": "a", "handler_version": "1", "dataset_config": {"n": [1, NaN]}}',
            ["NaN"],
        ),
    ],
)
def test_bad_configs(
    client_config: Config, tmp_path: Path, text: str | None, words: list[str]
) -> None:
    cfg = tmp_path / "c.json"
    if text is not None:
        cfg.write_text(text)
    ran = dscache(client_config, "get", str(cfg))
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.strip().splitlines()) == 1
    for word in [str(cfg), *words]:
        assert word in ran.err


def test_wrong_credentials_and_no_server(client_config: Config, tmp_path: Path) -> None:
    cfg = str(write_spec(tmp_path / "c.json", "counting"))
    wrong = dscache(client_config._replace(secret_key="wrong-wrong-wrong"), "get", cfg)
    assert (wrong.code, wrong.out) == (6, "")
    assert "access denied" in wrong.err
    assert "wrong-wrong-wrong" not in wrong.err
    nobody = dscache(client_config._replace(endpoint="http://127.0.0.1:1"), "get", cfg)
    assert (nobody.code, nobody.out) == (7, "")
    assert "http://127.0.0.1:1" in nobody.err
    nothing = dscache(client_config._replace(endpoint=""), "get", cfg)
    assert (nothing.code, nothing.out) == (2, "")
    assert "dscache up" in nothing.err
    for ran in (wrong, nobody, nothing):
        assert len(ran.err.strip().splitlines()) == 1


def test_builder_configuration_mistakes(new_builder: NewBuilder, tmp_path: Path) -> None:
    def problem(toml: str) -> tuple[int, str]:
        builder = new_builder("wrong")
        builder.log.unlink(missing_ok=True)
        builder.toml.write_text(toml)
        builder.start()
        return builder.wait(), builder.text()

    missing = Builder(tmp_path / "none.toml", tmp_path / "none.log").start()
    assert missing.wait() == 2
    assert "no such file" in missing.text()
    code, text = problem("state = ")
    assert (code, "not TOML" in text) == (2, True)
    code, text = problem('state = "s"\nunknown = 1\n[datasets.a]\nhandler="a"\nraw="r"\nsource="s"')
    assert (code, "unknown" in text) == (2, True)
    code, text = problem('state = "s"\nsweep_s = 30\n[datasets]')
    assert (code, "sweep_s has been renamed: write reconcile_s" in text) == (2, True)
    code, text = problem('state = "s"\n[datasets]')
    assert (code, "nothing to build" in text) == (2, True)


def test_two_builders_cannot_share_a_state_folder(new_builder: NewBuilder) -> None:
    first = new_builder().start()
    wait_until(lambda: "listening" in first.text(), "first builder up")
    second = new_builder()
    second.log = second.log.with_name("second.log")
    second.start()
    assert second.wait() == 2
    assert "in use by another builder" in second.text()


def test_cancel_by_topic_finds_a_request_that_moved_to_the_resolved_key(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path, numbers: Path
) -> None:
    (numbers / "000.hold").touch()
    short = write_spec(tmp_path / "short.json", "counting", padding=5)
    topic = dscache(client_config, "request", str(short)).out.strip()
    new_builder().start()
    wait_until(lambda: (numbers / "loads.log").exists(), "the resolved spec is being built")
    ran = dscache(client_config, "cancel", "--json", topic)
    assert json.loads(ran.out) == {"cancelled": 1}
    wait_until(lambda: not list(store.entries(layout.REQUESTS)), "stopped and answered")
    (numbers / "000.hold").unlink()
    assert "cancelled by" in dscache(client_config, "wait", topic).err
