"""Single attempts at a key on a simulated bucket: what goes wrong in one, what is left of it."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import dscache_builder.attempt.build
import dscache_builder.attempt.heartbeat
from dscache.errors import InvalidPart, StoreError, StoreUnreachable
from dscache.protocol import layout, manifests, wait
from dscache.protocol.manifests import Checkpoint, Failure, Live
from dscache.spec import Spec
from dscache.store.upload import body_size
from dscache_builder.attempt.attempt import MAX_TAKEOVERS, Attempt
from dscache_builder.attempt.build import Build
from dscache_builder.attempt.claim import CLAIM_TTL_S, Claim
from dscache_builder.attempt.context import AttemptContext, Outcome
from dscache_builder.attempt.parts import MAX_PART_BYTES, Packer
from dscache_builder.attempt.progress import BucketReporter
from dscache_builder.failure import HandlerFailure
from dscache_builder.hosting.messages import ShardBuilt
from simulation.actors import SHARDS, SPEC, FakeEngine, FakeHandler, FakeSession, HereAndNow
from simulation.store import Bucket, Fate, SimulatedStore

OTHER = Spec.of("photos", "1.0.0", {"size": 2})


class Bench:
    """A bucket, a handler and a builder; every attempt is one of the same process."""

    def __init__(self, folder: Path, spec: Spec = SPEC) -> None:
        self.bucket = Bucket()
        self.requests: list[str] = []
        self.store = SimulatedStore(self.bucket, self.step)
        self.handler = FakeHandler(folder, resolved=spec)
        self.spec = spec
        self.before: Callable[[str], None] = lambda label: None
        self._serial = itertools.count()

    def step(self, label: str) -> None:
        self.requests.append(label)
        self.before(label)

    def ask(self) -> str:
        nonce = f"ask{next(self._serial)}"
        wait.put_request(self.store, self.spec, nonce=nonce, client="c")
        return nonce

    def attempt(self, **changes: Any) -> Outcome:
        settings: dict[str, Any] = {
            "store": self.store,
            "engine": FakeEngine(self.handler),
            "uploads": HereAndNow(),
            "owner": "builder:1",
            "builder": "builder",
            "unique": lambda: f"unique{next(self._serial)}",
            "clock": lambda: self.bucket.clock,
            "sleep": self._sleep,
        }
        return Attempt(AttemptContext(**{**settings, **changes}), self.spec.key).run()

    def _sleep(self, seconds: float) -> None:
        self.bucket.clock += seconds

    def checkpoint(self) -> Checkpoint:
        name = layout.claim(self.spec.key)
        return manifests.decode(self.bucket.objects[name].body, Checkpoint, where=name)

    def failure(self, nonce: str) -> Failure:
        name = layout.failed(self.spec.key, nonce)
        return manifests.decode(self.bucket.objects[name].body, Failure, where=name)

    def assert_complete(self) -> None:
        name = layout.ready(self.spec.key)
        live = manifests.decode_ready(self.bucket.objects[name].body, where=name)
        assert isinstance(live, Live)
        body = self.bucket.objects[live.zip_key].body
        assert len(body) == live.zip_size
        assert len(live.shards) == SHARDS
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [member.name for member in live.members]
            for member in live.members:
                at = body[member.offset : member.offset + member.size]
                assert at == archive.read(member.name)


class WhenWaitedFor(Executor):
    """Uploads that end when somebody waits for them, all that have begun at once."""

    def __init__(self) -> None:
        self.begun: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.begun.append((future, lambda: fn(*args, **kwargs)))
        return future

    def end(self, *_: object, **__: object) -> None:
        for future, work in self.begun:
            future.set_result(work())
        self.begun.clear()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def _a_part_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dscache_builder.attempt.build, "part_bytes", lambda estimated: 1)


@pytest.mark.usefixtures("_a_part_per_shard")
@pytest.mark.parametrize(("lock", "kept"), [("lock", 1), ("another", 0)])
def test_parts_are_kept_for_the_same_lock_only(lock: str, kept: int, bench: Bench) -> None:
    """Other code may give other bytes for the same plan: a dataset is all of one lock."""
    bench.ask()
    stopped = bench.attempt(stopping=lambda: len(bench.checkpoint().parts) == 1)
    assert stopped is Outcome.STOPPED
    before = bench.handler.shards_built
    bench.handler.lock = lock
    assert bench.attempt() is Outcome.ANSWERED
    assert bench.handler.shards_built - before == SHARDS - kept
    bench.assert_complete()


def test_a_request_that_the_store_does_not_hand_out_harms_only_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is encrypted with its writer's own key, for example: MinIO answers a GET with 400."""
    get = SimulatedStore.get
    bad = layout.request(SPEC.key, "0-before-all-others")

    def refuses(self: SimulatedStore, name: str, **limits: Any) -> Any:
        if name == bad:
            raise StoreError(f"{name}: the object was stored using server side encryption")
        return get(self, name, **limits)

    monkeypatch.setattr(SimulatedStore, "get", refuses)
    bench.store.put(bad, b"secret")
    bench.ask()
    assert bench.attempt() is Outcome.ANSWERED
    bench.assert_complete()
    bench.store.put(layout.request(OTHER.key, "alone"), b"")
    bad = layout.request(OTHER.key, "alone")
    bench.spec = OTHER
    assert bench.attempt() is Outcome.FAILED
    assert bench.failure("alone").kind == "request"
    assert "does not hand it out" in bench.failure("alone").message


@pytest.mark.usefixtures("_a_part_per_shard")
def test_the_last_part_is_recorded_by_the_seal_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it was sent faster than the one before it, and the builder stops just then."""
    uploads = WhenWaitedFor()
    monkeypatch.setattr(dscache_builder.attempt.build, "wait", uploads.end)

    def all_up() -> bool:
        return any(len(upload.parts) == SHARDS + 1 for upload in bench.bucket.uploads.values())

    bench.ask()
    assert bench.attempt(uploads=uploads, stopping=all_up) is Outcome.STOPPED
    assert len(bench.checkpoint().parts) == SHARDS
    assert bench.attempt() is Outcome.ANSWERED
    bench.assert_complete()


def test_builders_that_died_are_forgotten_once_that_was_answered(bench: Bench) -> None:
    """Whoever asks again, as the message says, gets an attempt and not the same answer again."""
    nonce = bench.ask()
    for i in range(MAX_TAKEOVERS + 2):
        assert Claim.take(
            bench.store, SPEC.key, owner=f"dead{i}:1", unique=partial("n{}".format, i)
        )
        bench.bucket.clock += CLAIM_TTL_S + 1
    assert bench.attempt() is Outcome.FAILED
    assert "builders in a row died" in bench.failure(nonce).message
    bench.ask()
    assert bench.attempt() is Outcome.ANSWERED
    bench.assert_complete()


def test_a_shard_that_was_not_built_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one above all: nothing follows it that would show the gap."""
    whole = FakeSession.build
    monkeypatch.setattr(FakeSession, "build", lambda self, *rest: islice(whole(self, *rest), 2))
    nonce = bench.ask()
    assert bench.attempt() is Outcome.FAILED
    assert bench.failure(nonce).message.startswith("only 2 of 3 shards were built")
    assert layout.ready(SPEC.key) not in bench.bucket.objects


def test_raw_data_that_changes_costs_the_upload_and_is_built_again(bench: Bench) -> None:
    """Nothing that was built from other raw data is kept: it may come back with its old times."""
    changes = iter(["1 file: a.png", "1 file: a.png", ""])
    bench.handler.raw_changes = lambda _: next(changes)
    bench.ask()
    assert bench.attempt() is Outcome.ANSWERED
    bench.assert_complete()
    assert bench.handler.shards_built == 3 * SHARDS
    aborts = [label for label in bench.requests if label.startswith("ABORT ")]
    assert len(aborts) == 2


@pytest.mark.parametrize(("revision", "exact"), [(None, ""), ("raw", "raw")])
def test_raw_data_that_never_rests_fails_and_leaves_nothing(
    revision: str | None, exact: str, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, Spec.of("photos", "1.0.0", {}, revision))
    asked: list[str] = []

    def changes(exact: str) -> str:
        asked.append(exact)
        return "1 file: a.png"

    bench.handler.raw_changes = changes
    nonce = bench.ask()
    assert bench.attempt() is Outcome.FAILED
    assert set(asked) == {exact}
    failure = bench.failure(nonce)
    assert failure.kind == "raw-data"
    assert "changed during the build (1 file: a.png)" in failure.message
    assert not bench.checkpoint().upload_id


def test_a_dataset_whose_description_is_too_large_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written that nobody could read: that key would be dead for ever."""
    monkeypatch.setattr(FakeSession, "features", lambda _: {"x": "y" * (64 << 20)})
    nonce = bench.ask()
    assert bench.attempt() is Outcome.FAILED
    failure = bench.failure(nonce)
    assert failure.kind == "handler"
    assert "a Checkpoint of 64.0 MiB cannot be written" in failure.message
    assert bench.checkpoint().owner == ""


def test_a_store_that_is_gone_ends_an_attempt_during_the_preview_too(bench: Bench) -> None:
    """The answers of a preview that was broken off would be taken for those of the build."""

    class Gone(FakeSession):
        def preview(self, count: int, to: Path) -> str:
            raise StoreUnreachable("renewing the claim, in a heartbeat")

    reporter = BucketReporter(bench.store, SPEC.key, attempt="a")
    with pytest.raises(StoreUnreachable):
        reporter.preview(Gone(bench.handler, SPEC, lambda: None))


def test_a_cancel_that_cannot_be_read_is_a_cancel(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dscache_builder.attempt.heartbeat, "CANCEL_POLL_S", 0.0)
    nonce = bench.ask()
    bench.store.put(layout.cancel(SPEC.key, nonce), b"\xff")
    assert bench.attempt() is Outcome.CANCELLED
    assert bench.failure(nonce).message == "cancelled by its requester"


@pytest.mark.parametrize(
    "body", [b'{"schema":1,"nonce":"\xff"}', b'{"schema":1,"spec":' + b"[" * 99_999]
)
def test_a_request_that_cannot_be_read_is_answered(bench: Bench, body: bytes) -> None:
    """Whoever may write requests may write anything."""
    bench.store.put(layout.request(SPEC.key, "bad"), body)
    assert bench.attempt() is Outcome.FAILED
    assert "not a manifest" in bench.failure("bad").message


@pytest.mark.usefixtures("_a_part_per_shard")
def test_the_upload_beside_an_unknown_zip_is_aborted(bench: Bench) -> None:
    """Its parts would lie in the store for days, and nobody would know of them."""
    bench.ask()
    stopped = bench.attempt(stopping=lambda: bench.handler.shards_built > 1)
    assert stopped is Outcome.STOPPED
    bench.store.put(layout.archive(SPEC.key, 0), b"somebody's")
    assert bench.attempt() is Outcome.ANSWERED
    assert bench.bucket.uploads == {}
    bench.assert_complete()


def test_a_pinned_revision_is_that_of_the_raw_data(tmp_path: Path) -> None:
    """The simulated raw data have revision "raw"."""
    bench = Bench(tmp_path, Spec.of("photos", "1.0.0", {"size": 1}, "of last year"))
    nonce = bench.ask()
    assert bench.attempt() is Outcome.FAILED
    failure = bench.failure(nonce)
    assert failure.kind == "raw-data"
    assert "'of last year'" in failure.message
    assert "'raw'" in failure.message
    assert bench.handler.shards_built == 0
    bench = Bench(tmp_path, Spec.of("photos", "1.0.0", {"size": 1}, "raw"))
    bench.ask()
    assert bench.attempt() is Outcome.ANSWERED


@pytest.mark.parametrize("planned", [True, False])
def test_ten_thousand_parts_hold_any_dataset(bench: Bench, planned: bool) -> None:
    """Also of a plain handler, of which nobody knows before how much it will write."""
    size, count = 6 << 20, 40_000
    bench.ask()
    claim = Claim.take(bench.store, SPEC.key, owner="b:1", unique=lambda: "n")
    assert claim is not None
    building = Build(
        store=bench.store,
        claim=claim,
        session=FakeSession(bench.handler, SPEC, lambda: None),
        uploads=HereAndNow(),
        heartbeat=lambda: None,
        unique=lambda: "n",
        scratch_bytes=1,
    )
    building.counts.shards = count if planned else 0
    building._packer = Packer(next_part=1, next_shard=0)
    for index in range(count):
        name = f"s{index}"
        building._shard_built(ShardBuilt(index, name, "train", Path(name), size, 0, "", 1, []))
    assert len(building._ready_parts) < 10_000
    assert max(body_size(part.segments) for part in building._ready_parts) < MAX_PART_BYTES


@pytest.mark.parametrize("withdrawn", [True, False])
def test_a_cancel_while_a_failure_passes_is_an_answer(bench: Bench, withdrawn: bool) -> None:
    bench.handler.broken = [HandlerFailure("disk", "full") for _ in range(9)]
    nonce = bench.ask()

    def change_mind(label: str) -> None:
        if not bench.handler.opened:
            return
        bench.before = lambda label: None
        if withdrawn:
            bench.bucket.objects.pop(layout.request(SPEC.key, nonce))
        else:
            bench.store.put(layout.cancel(SPEC.key, nonce), b"{}")

    bench.before = change_mind
    outcome = bench.attempt()
    assert outcome is (Outcome.ANSWERED if withdrawn else Outcome.CANCELLED)
    assert bench.checkpoint().owner == ""


def test_a_store_that_refuses_what_it_lists_is_not_asked_without_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that are invalid when completing, and valid when listed."""

    def refuse(*_: object) -> str:
        raise InvalidPart("part 1")

    def not_too_often(label: str) -> None:
        assert len(bench.requests) < 500

    monkeypatch.setattr(bench.store, "complete_upload", refuse)
    bench.before = not_too_often
    until = bench.bucket.clock + 20
    bench.ask()
    assert bench.attempt(stopping=lambda: bench.bucket.clock > until) is Outcome.STOPPED
    assert bench.checkpoint().owner == ""


def test_a_cancel_goes_along_with_the_request_to_the_resolved_key(bench: Bench) -> None:
    resolved = Spec.of("photos", "1.0.0", {"size": 1, "default": 2})
    bench.handler.resolved = resolved
    nonce, other = bench.ask(), bench.ask()
    bench.store.put(layout.cancel(SPEC.key, nonce), b"{}")
    assert bench.attempt() is Outcome.ANSWERED
    left = {name for name in bench.bucket.objects if name.startswith(layout.REQUESTS)}
    forwarded = {layout.request(resolved.key, asked) for asked in (nonce, other)}
    assert left == {*forwarded, layout.cancel(resolved.key, nonce)}


def test_no_handler_runs_for_requests_that_are_all_cancelled(bench: Bench) -> None:
    """Requested and cancelled while no builder was running."""
    nonces = [bench.ask(), bench.ask()]
    for nonce in nonces:
        bench.store.put(layout.cancel(SPEC.key, nonce), b"{}")
    assert bench.attempt() is Outcome.CANCELLED
    assert bench.handler.opened == 0
    assert {bench.failure(nonce).kind for nonce in nonces} == {"cancelled"}
    assert not [name for name in bench.bucket.objects if name.startswith(layout.REQUESTS)]


def test_a_request_that_was_answered_before_its_answer_arrived_was_put(bench: Bench) -> None:
    """The store's answer to the PUT is lost, a builder answers and deletes the request, and only
    then the client repeats the PUT and meets a 412 of an object that is gone."""

    def quick_builder(label: str) -> None:
        if label == f"GET {layout.request(SPEC.key, 'n')}":
            bench.bucket.objects.pop(layout.request(SPEC.key, "n"), None)

    bench.before = quick_builder
    store = SimulatedStore(bench.bucket, bench.step, lambda: Fate.REPEATED)
    assert wait.put_request(store, SPEC, nonce="n", client="c").nonce == "n"
