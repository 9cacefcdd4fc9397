"""`dscache admin unlock` on a real store: what it refuses, what it leaves, and who may do it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dscache.config import Config
from dscache.errors import IntegrityError, PreconditionFailed, UsageError
from dscache.protocol import layout, manifests, markers
from dscache.protocol.manifests import (
    Alias,
    Checkpoint,
    HandlerVersion,
    Lock,
    Manifest,
    Unlocked,
)
from dscache.protocol.retire import retire
from dscache.protocol.unlock import VersionInUse, unlock
from dscache.spec import Spec
from dscache.store.s3 import Store
from support.datasets import publish, random_files
from support.running import dscache

pytestmark = pytest.mark.store

SPEC = Spec.of("photos", "1.0.0", {"size": 4})
NAME = layout.lock("photos", "1.0.0")
LOCKED = HandlerVersion(
    dataset_name="photos",
    handler_version="1.0.0",
    lock=Lock(source="wrong==1.0.0", requirements="wrong==1.0.0\n", python="3.11"),
    options={"type": "object"},
)


@pytest.fixture(autouse=True)
def _locked(store: Store) -> None:
    store.put(NAME, manifests.encode(LOCKED))


def stored(store: Store) -> HandlerVersion:
    version, _ = markers.read_handler_version(store, "photos", "1.0.0")
    assert version is not None
    return version


def run_unlock(store: Store) -> Lock:
    return unlock(store, "photos", "1.0.0", by="somebody@here", nonce="n1")


def claim(**members: object) -> Checkpoint:
    usual = {"owner": "", "nonce": "n", "counter": 1, "expires_at": 0.0}
    return msgspec.convert({**usual, **members}, Checkpoint)


def test_a_lock_that_nothing_hangs_on(builder_config: Config, store: Store) -> None:
    """Who did it, and what it was, stays in the register."""
    store.put(layout.claim(SPEC.key), manifests.encode(claim()))  # an attempt that failed
    ran = dscache(builder_config, "admin", "unlock", "photos", "1.0.0", DSCACHE_CLIENT_NAME="me@x")
    assert (ran.code, ran.out) == (0, ""), ran.err
    assert "no longer locked from wrong==1.0.0" in ran.err
    version = stored(store)
    assert (version.lock, version.options) == (None, {})
    assert version.unlocked is not None
    assert (version.unlocked.by, version.unlocked.source) == ("me@x", "wrong==1.0.0")
    assert abs(version.unlocked.at - store.now()) < 60


def test_as_json(builder_config: Config) -> None:
    ran = dscache(builder_config, "admin", "unlock", "photos", "1.0.0", "--json")
    assert json.loads(ran.out)["was_locked_from"] == "wrong==1.0.0"


def test_there_is_nothing_to_unlock(builder_config: Config, builder_store: Store) -> None:
    run_unlock(builder_store)
    for version in ("1.0.0", "9.9.9"):
        ran = dscache(builder_config, "admin", "unlock", "photos", version)
        assert (ran.code, ran.out) == (2, "")
        assert f"handlers/photos/{version}.json: there is no lock" in ran.err


@pytest.mark.parametrize("words", [("Photos", "1.0.0"), ("photos", "../1")])
def test_names_that_cannot_be(builder_config: Config, words: tuple[str, str]) -> None:
    ran = dscache(builder_config, "admin", "unlock", *words)
    assert (ran.code, ran.out) == (2, "")
    assert "expected a dataset_name and a handler_version" in ran.err


def test_the_clients_rights_do_not_suffice(client_config: Config, store: Store) -> None:
    ran = dscache(client_config, "admin", "unlock", "photos", "1.0.0")
    assert (ran.code, ran.out) == (6, "")
    assert "needs the builder's rights" in ran.err
    assert "builder.toml" in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert stored(store) == LOCKED


def test_ready_datasets_are_named(builder_config: Config, store: Store) -> None:
    lives = [publish(store, random_files([10]), config={"n": number}) for number in range(5)]
    ran = dscache(builder_config, "admin", "unlock", "photos", "1.0.0")
    assert (ran.code, ran.out) == (2, "")
    named = [live.spec.key for live in lives if live.spec.key in ran.err]
    assert len(named) == 3
    assert "; …" in ran.err
    assert "retired first" in ran.err
    assert stored(store) == LOCKED
    for live in lives:
        retire(store, live.spec.key, nonce=live.spec.key)
    assert dscache(builder_config, "admin", "unlock", "photos", "1.0.0").code == 0


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        (
            layout.ready(SPEC.key),
            Alias(key=SPEC.key, spec=SPEC, nonce="n"),
            "is an alias of",
        ),
        (layout.claim(SPEC.key), claim(owner="b:1", expires_at=9e9), "is being built"),
        (layout.claim(SPEC.key), claim(owner="b:1", expires_at=1.0), "is being built"),
        (
            layout.claim(SPEC.key),
            claim(seal={"zip_etag": "e", "zip_size": 1, "members": []}),
            "not published yet",
        ),
    ],
    ids=["alias", "build", "build of a builder that pauses", "seal"],
)
def test_what_else_hangs_on_a_lock(
    name: str, body: Manifest, message: str, builder_store: Store
) -> None:
    builder_store.put(name, manifests.encode(body))
    with pytest.raises(VersionInUse, match=f"{SPEC.key} .*{message}"):
        run_unlock(builder_store)
    assert stored(builder_store) == LOCKED


def test_other_versions_are_none_of_its_business(store: Store, builder_store: Store) -> None:
    for spec in (Spec.of("photos", "1.0.0-rc", {}), Spec.of("photos-2", "1.0.0", {})):
        store.put(layout.claim(spec.key), manifests.encode(claim(owner="b:1")))
    run_unlock(builder_store)
    assert stored(builder_store).lock is None


def test_a_marker_that_cannot_be_read_may_be_a_dataset(builder_store: Store) -> None:
    builder_store.put(layout.ready(SPEC.key), b"damaged")
    with pytest.raises(IntegrityError, match=layout.ready(SPEC.key)):
        run_unlock(builder_store)
    assert stored(builder_store) == LOCKED


# Races.


class Interrupted(Store):
    """Something happens just before, or just after, the first write of the lock."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def put(self, name: str, body: bytes, **options: Any) -> str:
        before, after = self.before, self.after
        if name != NAME:
            return super().put(name, body, **options)
        self.before = self.after = None
        if before is not None:
            before()
        etag = super().put(name, body, **options)
        if after is not None:
            after()
        return etag


@pytest.fixture
def interrupted(builder_config: Config) -> Interrupted:
    return Interrupted(builder_config)


def test_a_build_that_begins_after_the_check(interrupted: Interrupted, store: Store) -> None:
    """It has read the lock; its claim, which is older, is found, and the lock is put back."""
    interrupted.before = lambda: store.put(
        layout.claim(SPEC.key), manifests.encode(claim(owner="b:1", expires_at=9e9))
    )
    with pytest.raises(VersionInUse, match="is being built"):
        run_unlock(interrupted)
    assert stored(store) == LOCKED


def test_a_build_that_is_published_after_the_check(interrupted: Interrupted, store: Store) -> None:
    interrupted.before = lambda: publish(store, random_files([10]))
    with pytest.raises(VersionInUse, match="is ready"):
        run_unlock(interrupted)
    assert stored(store) == LOCKED


def test_a_lock_that_another_process_wrote_meanwhile_stays(
    interrupted: Interrupted, store: Store
) -> None:
    other = manifests.encode(
        HandlerVersion(dataset_name="photos", handler_version="1.0.0", lock=LOCKED.lock)
    )
    interrupted.before = lambda: store.put(NAME, other)
    with pytest.raises(UsageError, match="another process has changed it"):
        run_unlock(interrupted)
    found = store.get(NAME)
    assert found is not None and found.body == other


def test_an_answer_that_is_lost(interrupted: Interrupted, store: Store) -> None:
    """The HTTP client repeats the write, which then meets its own success."""

    def lost() -> None:
        raise PreconditionFailed("the second try")

    interrupted.after = lost
    assert run_unlock(interrupted).source == "wrong==1.0.0"
    assert stored(store).lock is None


def test_unlocking_never_writes_the_same_twice(builder_store: Store) -> None:
    etags = set()
    for nonce in ("n1", "n2"):
        builder_store.put(NAME, manifests.encode(LOCKED))
        unlock(builder_store, "photos", "1.0.0", by="b", nonce=nonce)
        head = builder_store.head(NAME)
        assert head is not None
        etags.add(head.etag)
    assert len(etags) == 2


# Builders of version 0.1.


class HandlerVersion01(Manifest, kw_only=True):
    """The structure as it was."""

    dataset_name: str
    handler_version: str
    lock: Lock


def test_an_older_builder_refuses_what_is_unlocked_and_reads_what_is_locked_again(
    builder_store: Store,
) -> None:
    run_unlock(builder_store)
    found = builder_store.get(NAME)
    assert found is not None
    with pytest.raises(IntegrityError, match=f"{NAME}: not a manifest of this version of dscache"):
        manifests.decode(found.body, HandlerVersion01, where=NAME)
    unlocked = Unlocked(by="b", at=1.0, source="wrong==1.0.0", nonce="n")
    again = HandlerVersion(
        dataset_name="photos", handler_version="1.0.0", lock=LOCKED.lock, unlocked=unlocked
    )
    old = manifests.decode(manifests.encode(again), HandlerVersion01, where=NAME)
    assert old.lock == LOCKED.lock
