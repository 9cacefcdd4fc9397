"""The lock of a handler version: who writes it, when, and how it is taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dscache.config import Config
from dscache.protocol import layout, manifests, markers
from dscache.protocol.manifests import HandlerVersion, Lock
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache_builder.config import BuilderConfig, DatasetSource
from dscache_builder.environments.environment import Environments, lock_digest
from dscache_builder.failure import HandlerFailure
from dscache_builder.handler_engine import HandlerEngine
from support.packages import HandlerPackage
from support.running import Builder, Ran, dscache, idle, write_spec

NewBuilder = Callable[..., Builder]
NAME = layout.lock("counting", "1.0.0")
COMPLETE = {"batch_size": 1, "padding": 0, "limit": 1000}  # nothing is left out: no alias
SPEC = Spec.of("counting", "1.0.0", COMPLETE)


def from_source(raw: Path, source: str, handler: str = "counting") -> dict[str, Any]:
    """`[datasets.counting]` of builder.toml."""
    return {"counting": {"handler": handler, "raw": str(raw), "source": source}}


def built_by(builder: Builder, client_config: Config, folder: Path, **options: Any) -> Ran:
    """`dscache get --retry` of a config of `counting`, with this builder alone."""
    builder.start()
    cfg = write_spec(folder / "c.json", "counting", **options)
    try:
        return dscache(client_config, "get", "--retry", str(cfg))
    finally:
        builder.stop()


def stored(store: Store) -> HandlerVersion | None:
    return markers.read_handler_version(store, "counting", "1.0.0")[0]


def source_of(store: Store) -> str:
    version = stored(store)
    assert version is not None and version.lock is not None
    return version.lock.source


# A wrong source.


def test_a_package_without_the_handler_locks_nothing(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path, numbers: Path
) -> None:
    """The error says what was looked for, and where; the corrected source builds the version."""
    wrong = new_builder("wrong", datasets=from_source(numbers, "troubles=={version}"))
    failed = built_by(wrong, client_config, tmp_path)
    assert failed.code == 3
    last = failed.err.strip().splitlines()[-1]
    for word in ("environment", "'counting'", "troubles==1.0.0", "[datasets.counting]"):
        assert word in last
    assert "Traceback" not in failed.err
    assert store.head(NAME) is None

    right = new_builder("right", datasets=from_source(numbers, "counting=={version}"))
    assert built_by(right, client_config, tmp_path).code == 0
    assert source_of(store) == "counting==1.0.0"


def test_a_module_that_cannot_be_imported_locks_nothing(
    new_builder: NewBuilder,
    client_config: Config,
    store: Store,
    tmp_path: Path,
    numbers: Path,
    wheelhouse: Path,
) -> None:
    package = HandlerPackage("broken-import", "raise OSError('no such device')", {"counting": "X"})
    package.wheel(tmp_path / "broken", wheelhouse)
    builder = new_builder(datasets=from_source(numbers, "broken-import=={version}"))
    failed = built_by(builder, client_config, tmp_path)
    assert failed.code == 3
    assert "no such device" in failed.err
    assert "broken-import==1.0.0" in failed.err.strip().splitlines()[-1]
    assert "Traceback" in failed.err, "the handler's author needs it"
    assert store.head(NAME) is None


def test_a_source_that_is_nowhere_says_what_to_do(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path, numbers: Path
) -> None:
    builder = new_builder(datasets=from_source(numbers, "no-such-handlers-at-all=={version}"))
    failed = built_by(builder, client_config, tmp_path)
    assert failed.code == 3
    last = failed.err.strip().splitlines()[-1]
    for word in ("no-such-handlers-at-all==1.0.0", "`source`", "`find_links`", "builder.toml"):
        assert word in last
    assert store.head(NAME) is None


def test_a_bad_config_of_one_user_does_not_keep_the_lock_from_being_written(
    new_builder: NewBuilder, client_config: Config, store: Store, tmp_path: Path
) -> None:
    failed = built_by(new_builder(), client_config, tmp_path, paddding=1)
    assert failed.code == 3
    assert "paddding" in failed.err
    version = stored(store)
    assert version is not None and version.lock is not None
    assert version.lock.source == "counting==1.0.0"
    assert "padding" in version.options["properties"], "options are in the first write"


# Two builders.


class Meanwhile(Environments):
    """Runs something after it has resolved a source, before anybody can write the lock."""

    then: Callable[[Lock], None]

    def resolve(self, source: str, version: str, *, heartbeat: Callable[[], None]) -> Lock:
        lock = super().resolve(source, version, heartbeat=heartbeat)
        self.then(lock)
        return lock


@pytest.fixture
def environments(wheelhouse: Path, shared_environments: Path) -> Meanwhile:
    return Meanwhile(shared_environments, find_links=[str(wheelhouse)])


@pytest.fixture
def engine(
    builder_store: Store, environments: Meanwhile, numbers: Path, tmp_path: Path
) -> HandlerEngine:
    """The engine of a builder whose source is right."""
    sources = {"counting": DatasetSource("counting", numbers, "counting=={version}")}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    config = BuilderConfig(state=tmp_path, scratch=scratch, datasets=sources, workers=1)
    return HandlerEngine(config, builder_store, environments)


def put_lock(store: Store, lock: Lock) -> None:
    version = HandlerVersion(dataset_name="counting", handler_version="1.0.0", lock=lock)
    store.put(NAME, manifests.encode(version), if_none_match=True)


def test_the_first_lock_applies_to_the_builder_that_lost(
    engine: HandlerEngine, environments: Meanwhile, store: Store
) -> None:
    winner: list[Lock] = []

    def other_builder(lock: Lock) -> None:
        requirements = f"# by another builder\n{lock.requirements}"
        winner.append(msgspec.structs.replace(lock, requirements=requirements))
        put_lock(store, winner[0])

    environments.then = other_builder
    with engine.open(SPEC, idle) as session:
        assert session.lock_digest == lock_digest(winner[0])
        assert session.resolved == SPEC
    version = stored(store)
    assert version is not None and version.lock == winner[0]


def test_a_builder_with_another_source_that_lost_makes_nothing(
    engine: HandlerEngine, environments: Meanwhile, store: Store
) -> None:
    environments.then = lambda lock: put_lock(
        store, msgspec.structs.replace(lock, source="troubles==1.0.0")
    )
    with pytest.raises(HandlerFailure, match=r"troubles==1\.0\.0.*`dscache admin unlock counting"):
        engine.open(SPEC, idle).__enter__()
    assert source_of(store) == "troubles==1.0.0"


# Taking it back.


def test_a_wrong_package_with_a_handler_of_that_name(
    new_builder: NewBuilder,
    builder_config: Config,
    client_config: Config,
    store: Store,
    tmp_path: Path,
    numbers: Path,
    wheelhouse: Path,
) -> None:
    """Locked, since the handler is there; unlocked, since no dataset is; then the other builds."""
    code = (
        "class Wrong:\n"
        + "".join(
            f"    def {name}(self, *_): raise ValueError('wrong')\n"
            for name in ("__init__", "as_tfrecord", "tf_records_mapper")
        )
        + "    def config_options(): return dict.fromkeys(['batch_size', 'padding', 'limit'])\n"
    )
    package = HandlerPackage("wrong-counting", code, {"counting": "Wrong"}, dependencies=())
    package.wheel(tmp_path / "wrong-counting", wheelhouse)
    wrong = new_builder("wrong", datasets=from_source(numbers, "wrong-counting=={version}"))
    assert built_by(wrong, client_config, tmp_path, **COMPLETE).code == 3
    assert source_of(store) == "wrong-counting==1.0.0"

    right = new_builder("right", datasets=from_source(numbers, "counting=={version}"))
    refused = built_by(right, client_config, tmp_path, **COMPLETE)
    assert refused.code == 3
    assert "`dscache admin unlock counting 1.0.0`" in refused.err

    unlocked = dscache(builder_config, "admin", "unlock", "counting", "1.0.0")
    assert unlocked.code == 0, unlocked.err
    built = built_by(right, client_config, tmp_path, **COMPLETE)
    assert built.code == 0, built.err
    version = stored(store)
    assert version is not None and version.lock is not None and version.unlocked is not None
    assert version.lock.source == "counting==1.0.0"
    assert version.unlocked.source == "wrong-counting==1.0.0"
    assert version.options

    again = dscache(builder_config, "admin", "unlock", "counting", "1.0.0")
    assert again.code == 2
    assert f"{SPEC.key} is ready" in again.err
    assert source_of(store) == "counting==1.0.0"


def test_a_lock_of_an_older_builder_without_the_handler(
    new_builder: NewBuilder,
    builder_config: Config,
    client_config: Config,
    store: Store,
    tmp_path: Path,
    numbers: Path,
    environments: Meanwhile,
) -> None:
    """Builders of 0.1 wrote the lock before they looked for the handler."""
    environments.then = lambda lock: put_lock(store, lock)
    environments.resolve("troubles=={version}", "1.0.0", heartbeat=idle)
    wrong = new_builder("wrong", datasets=from_source(numbers, "troubles=={version}"))
    failed = built_by(wrong, client_config, tmp_path)
    assert "run `dscache admin unlock counting 1.0.0`" in failed.err
    assert dscache(builder_config, "admin", "unlock", "counting", "1.0.0").code == 0
    assert built_by(new_builder(), client_config, tmp_path).code == 0
    assert source_of(store) == "counting==1.0.0"
