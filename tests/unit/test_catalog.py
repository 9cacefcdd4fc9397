"""The state of a key as people see it, on a simulated bucket."""

from __future__ import annotations

import queue
from typing import Any

import msgspec
import pytest

from dscache import catalog
from dscache.client import Client
from dscache.config import Config
from dscache.errors import NotCached, StoreUnreachable
from dscache.protocol import layout, manifests, retire, wait
from dscache.protocol.manifests import Alias, Failure, Live, Timings
from dscache.protocol.state import State
from dscache.protocol.wait import OutstandingRequest, WaitOptions
from dscache.remote import Remote
from dscache.spec import Spec
from dscache.store.notifications import Signal
from simulation.store import Bucket, SimulatedStore
from support.datasets import MEMBER

SPEC = Spec.of("photos", "1.0.0", {})
LIVE = Live(
    spec=SPEC,
    generation=0,
    zip_key=layout.archive(SPEC.key, 0),
    zip_etag="e",
    zip_size=1,
    seal="s",
    members=[MEMBER],
)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def store(bucket: Bucket) -> SimulatedStore:
    return SimulatedStore(bucket, lambda label: None)


def fail(store: SimulatedStore, nonce: str) -> None:
    failure = Failure(kind="handler", message="no", nonce=nonce, failed_at=store.now())
    store.put(layout.failed(SPEC.key, nonce), manifests.encode(failure))


def test_a_failure_before_a_dataset_that_was_cleaned_away_is_history(
    bucket: Bucket, store: SimulatedStore
) -> None:
    """It was built since: asking for it again needs no --retry."""
    fail(store, "first")
    bucket.clock += 10
    store.put(layout.ready(SPEC.key), manifests.encode(LIVE))
    bucket.clock += 10
    assert retire.retire(store, SPEC.key, nonce="r")
    assert catalog.status(store, SPEC.key).state is State.ABSENT
    bucket.clock += 10
    fail(store, "second")
    status = catalog.status(store, SPEC.key)
    assert status.state is State.FAILED
    assert status.failure is not None
    assert status.failure.nonce == "second"


def test_what_a_newer_version_wrote_does_not_keep_people_from_the_rest(
    bucket: Bucket, store: SimulatedStore
) -> None:
    """Hints least of all, and a failure of a kind that nobody here knows."""
    for i in range(20):
        fail(store, f"old{i}")
    bucket.clock += 10
    fail(store, "known")
    bucket.clock += 10
    newer = b'{"schema":2}'
    store.put(layout.failed(SPEC.key, "newer"), newer)
    store.put(layout.progress(SPEC.key), newer)
    store.put(layout.raw("photos"), newer)
    requests: list[str] = []
    status = catalog.status(SimulatedStore(bucket, requests.append), SPEC.key)
    assert status.failure is not None
    assert status.failure.nonce == "known"
    assert len(requests) < 10, "the old failures need not be read"
    wait.put_request(store, SPEC, nonce="n", client="c")
    assert catalog.status(store, SPEC.key).state is State.REQUESTED
    assert catalog.raw_revisions(store, ["photos"]) == {}


def test_a_request_that_cannot_be_read_hides_no_other(store: SimulatedStore) -> None:
    store.put(layout.request(SPEC.key, "a"), b"damaged")
    wait.put_request(store, SPEC, nonce="b", client="me")
    assert catalog.spec_of_key(store, SPEC.key) == SPEC
    assert client_of(store).cancel(SPEC.key) == 1


def test_waiting_goes_on_when_progress_cannot_be_read(store: SimulatedStore) -> None:
    out = wait.put_request(store, SPEC, nonce="n", client="c")
    store.put(layout.progress(SPEC.key), b"damaged")

    class Signals(queue.Queue[Signal]):
        def get(self, block: bool = True, timeout: float | None = None) -> Signal:
            store.put(layout.ready(SPEC.key), manifests.encode(LIVE))
            raise queue.Empty

    clock = iter(range(1000))
    how = WaitOptions(Signals(), clock=lambda: float(next(clock)))
    assert isinstance(wait.wait(store, out, lambda spec: OutstandingRequest(spec, "n"), how), Live)


def test_an_answer_between_two_looks_is_found(bucket: Bucket) -> None:
    """The builder publishes and deletes the request just after the client saw neither answer."""

    def answered_meanwhile(label: str) -> None:
        if label == f"GET {layout.request(SPEC.key, 'n')}":
            builder.put(layout.ready(SPEC.key), manifests.encode(LIVE))
            builder.delete(layout.request(SPEC.key, "n"))

    builder = SimulatedStore(bucket, lambda label: None)
    topic = wait.put_request(builder, SPEC, nonce="n", client="c").topic
    store = SimulatedStore(bucket, answered_meanwhile)
    assert client_of(store).wait(topic) == SPEC.key
    with pytest.raises(NotCached):
        client_of(store).wait(f"{Spec.of('photos', '2.0.0', {}).key}.n")


def client_of(store: Any) -> Client:
    """A client of a store, which may be a simulated one."""
    client = Client(Config(client_name="me"))
    client._remote = Remote(client.config, store)
    return client


def live(bucket: Bucket, store: SimulatedStore, name: str, number: int) -> str:
    """A ready dataset, a second newer than the one before."""
    spec = Spec.of(name, "1.0.0", {"number": number})
    bucket.clock += 1
    marker = msgspec.structs.replace(
        LIVE,
        spec=spec,
        zip_key=layout.archive(spec.key, 0),
        timings=Timings(finished_at=bucket.clock),
    )
    store.put(layout.archive(spec.key, 0), b"")
    store.put(layout.ready(spec.key), manifests.encode(marker))
    return spec.key


def test_listing_reads_names_and_as_many_markers_as_are_shown(bucket: Bucket) -> None:
    asked: list[str] = []
    store = SimulatedStore(bucket, asked.append)
    keys = [live(bucket, store, "photos", number) for number in range(40)]
    other = live(bucket, store, "faces", 0)
    assert catalog.live_keys(store) == [other, *reversed(keys)]
    assert catalog.live_keys(store, "photos") == keys[::-1]
    asked.clear()
    shown = catalog.live_datasets(store, keys[::-1], limit=20)
    assert [dataset["key"] for dataset in shown] == keys[:19:-1]
    assert len(asked) == 20
    assert len(catalog.live_datasets(store, keys)) == 40


def test_a_listing_leaves_out_aliases_and_what_was_cleaned_away(
    bucket: Bucket, store: SimulatedStore
) -> None:
    first, second, third = (live(bucket, store, "photos", number) for number in range(3))
    assert retire.retire(store, second, nonce="r")
    store.put(layout.archive(second, 0), b"its zip is still there")
    alias = Alias(key=first, spec=Spec.of("photos", "1.0.0", {"number": 0}), nonce="a")
    store.put(layout.ready(Spec.of("photos", "1.0.0", {}).key), manifests.encode(alias))
    keys = catalog.live_keys(store)
    assert set(keys) == {first, second, third}
    shown = catalog.live_datasets(store, keys, limit=2)
    assert [dataset["key"] for dataset in shown] == [third, first]


def test_a_list_is_about_the_others_too(
    bucket: Bucket, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object that the store does not serve is left out; a store that is gone is an error."""
    specs = [Spec.of("photos", "1.0.0", {"n": n}) for n in range(6)]
    for spec in specs:
        zip_key = layout.archive(spec.key, 0)
        live = msgspec.structs.replace(LIVE, spec=spec, zip_key=zip_key)
        store.put(layout.ready(spec.key), manifests.encode(live))
        store.put(zip_key, b"z")
        wait.put_request(store, spec, nonce="n", client="c")
    store.put(layout.raw("photos"), b"{}")
    get, unserved = store.get, {layout.ready(specs[2].key), layout.raw("photos")}

    def serve(name: str, **options: Any) -> Any:
        if name in unserved:
            raise StoreUnreachable(f"{name}: timed out")
        return get(name, **options)

    monkeypatch.setattr(store, "get", serve)
    keys = catalog.live_keys(store)
    others = {spec.key for spec in specs} - {specs[2].key}
    assert {live["key"] for live in catalog.live_datasets(store, keys)} == others
    assert {status.key for status in catalog.outstanding(store)} == others
    assert catalog.raw_revisions(store, ["photos"]) == {}
    unserved |= {layout.ready(spec.key) for spec in specs}
    with pytest.raises(StoreUnreachable):
        catalog.live_datasets(store, keys)
    with pytest.raises(StoreUnreachable):
        catalog.outstanding(store)
