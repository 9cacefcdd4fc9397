"""What the protocol takes for granted about the store, shown on the running server.

Everything goes through `dscache.store.Store`. When a server upgrade breaks one of these, the
protocol does not hold on it.
"""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest

from dscache.config import Config
from dscache.devstack.localstore import LocalStore
from dscache.devstack.server import free_ports
from dscache.errors import (
    AccessDenied,
    BucketMissing,
    InvalidPart,
    NoSuchUpload,
    PreconditionFailed,
    StoreError,
    StoreUnreachable,
)
from dscache.store.objects import Part, multipart_etag
from dscache.store.s3 import PRESIGN_MAX_S, Store
from dscache.store.upload import FilePiece
from support.running import wait_until

pytestmark = pytest.mark.store
ROUNDS = 20
RACERS = 16
MIB = 1 << 20
PART = 5 * MIB
ZIP = "datasets/x.zip"


def won(action: Callable[[], object]) -> bool:
    """Whether a conditional write went through."""
    try:
        action()
    except PreconditionFailed:
        return False
    return True


def race(racers: int, action: Callable[[int], object]) -> list[int]:
    """Run `action(i)` in all threads at once; who won."""
    gate = Barrier(racers)

    def run(racer: int) -> bool:
        gate.wait(30)
        return won(lambda: action(racer))

    with ThreadPoolExecutor(racers) as pool:
        return [racer for racer, result in enumerate(pool.map(run, range(racers))) if result]


def test_create_has_exactly_one_winner(store: Store) -> None:
    for number in range(ROUNDS):
        name = f"builds/{number}.json"

        def create(racer: int, name: str = name) -> str:
            return store.put(name, f"{racer}".encode(), if_none_match=True)

        winners = race(RACERS, create)
        assert len(winners) == 1
        found = store.get(name)
        assert found is not None
        assert found.body == f"{winners[0]}".encode()


def test_replace_has_exactly_one_winner(store: Store) -> None:
    name = "builds/x.json"
    etag = store.put(name, b"begin")
    for number in range(ROUNDS):
        bodies = [f"{number}.{i}".encode() for i in range(RACERS)]

        def replace(racer: int, etag: str = etag, bodies: list[bytes] = bodies) -> str:
            return store.put(name, bodies[racer], if_match=etag)

        winners = race(RACERS, replace)
        assert len(winners) == 1
        found = store.get(name)
        assert found is not None
        assert found.body == bodies[winners[0]]
        etag = found.etag


def test_conditions_one_after_the_other(store: Store) -> None:
    first = store.put("builds/x.json", b"1", if_none_match=True)
    assert not won(lambda: store.put("builds/x.json", b"2", if_none_match=True))
    second = store.put("builds/x.json", b"2", if_match=first)
    assert not won(lambda: store.put("builds/x.json", b"3", if_match=first))
    found = store.get("builds/x.json")
    assert found is not None
    assert (found.body, found.etag) == (b"2", second)


def test_if_match_on_an_absent_object_fails_and_creates_nothing(store: Store) -> None:
    etag = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
    assert not won(lambda: store.put("builds/x.json", b"x", if_match=etag))
    assert store.get("builds/x.json") is None


def test_equal_bodies_have_equal_etags(store: Store) -> None:
    """Why a register's body carries a counter and a nonce."""
    etag = store.put("builds/x.json", b"same")
    assert store.put("builds/x.json", b"same") == etag
    assert etag == hashlib.md5(b"same", usedforsecurity=False).hexdigest()


def test_delete_is_unconditional_and_repeatable(store: Store) -> None:
    store.put("requests/x.n.json", b"{}")
    store.delete("requests/x.n.json")
    assert store.get("requests/x.n.json") is None
    assert store.head("requests/x.n.json") is None
    store.delete("requests/x.n.json")


def test_delete_ignores_if_match(store: Store) -> None:
    """Why nothing that matters is ever deleted: the server does not check the condition."""
    store.put("builds/x.json", b"{}")
    store._client.delete_object(Bucket=store.bucket, Key="builds/x.json", IfMatch='"wrong"')
    assert store.get("builds/x.json") is None


def test_a_deleted_name_can_be_created_again(store: Store) -> None:
    store.put("builds/x.json", b"1", if_none_match=True)
    store.delete("builds/x.json")
    assert won(lambda: store.put("builds/x.json", b"2", if_none_match=True))


def test_metadata_and_size(store: Store) -> None:
    store.put("datasets/x.progress", b"12345", metadata={"phase": "build", "done": "3"})
    head = store.head("datasets/x.progress")
    assert head is not None
    assert head.size == 5
    assert dict(head.metadata) == {"phase": "build", "done": "3"}


def test_metadata_travel_as_headers_which_are_ascii(store: Store) -> None:
    with pytest.raises(StoreError, match="not ASCII"):
        store.put("datasets/x.progress", b"1", metadata={"phase": "Größe"})


def test_upload_keeps_its_metadata(store: Store) -> None:
    upload = store.create_upload(ZIP, {"nonce": "abc"})
    etag = store.upload_part(ZIP, upload, 1, [b"x"])
    store.complete_upload(ZIP, upload, [(1, etag)])
    head = store.head(ZIP)
    assert head is not None
    assert head.metadata["nonce"] == "abc"


def test_upload_of_bytes_and_files(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "shard"
    file.write_bytes(b"b" * PART)
    upload = store.create_upload(ZIP, {})
    etags = [
        store.upload_part(ZIP, upload, 1, [b"header", FilePiece(file, PART)]),
        store.upload_part(ZIP, upload, 2, [b"end"]),
    ]
    assert store.list_parts(ZIP, upload) == [Part(1, etags[0], PART + 6), Part(2, etags[1], 3)]
    etag = store.complete_upload(ZIP, upload, list(enumerate(etags, 1)))
    assert etag == multipart_etag(etags)
    found = store.get(ZIP, limit_bytes=2 * PART)
    assert found is not None
    assert found.body == b"header" + b"b" * PART + b"end"
    assert found.etag == etag


def test_gaps_between_part_numbers(store: Store) -> None:
    upload = store.create_upload(ZIP, {})
    etags = [
        (3, store.upload_part(ZIP, upload, 3, [b"a" * PART])),
        (9000, store.upload_part(ZIP, upload, 9000, [b"z"])),
    ]
    store.complete_upload(ZIP, upload, etags)
    head = store.head(ZIP)
    assert head is not None
    assert head.size == PART + 1


def test_parts_are_listed_over_several_pages(store: Store) -> None:
    upload = store.create_upload(ZIP, {})
    with ThreadPoolExecutor(8) as pool:
        etags = list(
            pool.map(lambda n: store.upload_part(ZIP, upload, n, [str(n).encode()]), range(1, 1102))
        )
    listed = store.list_parts(ZIP, upload)
    assert [part.number for part in listed] == list(range(1, 1102))
    assert [part.etag for part in listed] == etags


def test_complete_refuses_an_existing_object(store: Store) -> None:
    store.put(ZIP, b"earlier")
    upload = store.create_upload(ZIP, {})
    parts = [(1, store.upload_part(ZIP, upload, 1, [b"later"]))]
    assert not won(lambda: store.complete_upload(ZIP, upload, parts))
    found = store.get(ZIP)
    assert found is not None
    assert found.body == b"earlier"
    # the upload survives a lost race: why zip names are never used again
    store.delete(ZIP)
    assert won(lambda: store.complete_upload(ZIP, upload, parts))


def test_completing_twice(store: Store) -> None:
    upload = store.create_upload(ZIP, {})
    parts = [(1, store.upload_part(ZIP, upload, 1, [b"x"]))]
    store.complete_upload(ZIP, upload, parts)
    assert not won(lambda: store.complete_upload(ZIP, upload, parts))
    store.delete(ZIP)
    with pytest.raises(NoSuchUpload):
        store.complete_upload(ZIP, upload, parts)


def test_of_uploads_completed_at_once_one_wins(store: Store) -> None:
    uploads = [store.create_upload(ZIP, {"nonce": str(i)}) for i in range(8)]
    parts = [
        [(1, store.upload_part(ZIP, upload, 1, [f"{i}".encode()]))]
        for i, upload in enumerate(uploads)
    ]
    winners = race(8, lambda i: store.complete_upload(ZIP, uploads[i], parts[i]))
    assert len(winners) == 1
    found, head = store.get(ZIP), store.head(ZIP)
    assert found is not None
    assert head is not None
    assert found.body == f"{winners[0]}".encode()
    assert head.metadata["nonce"] == str(winners[0])


def test_unknown_upload(store: Store) -> None:
    upload = store.create_upload(ZIP, {})
    store.abort_upload(ZIP, upload)
    store.abort_upload(ZIP, upload)
    with pytest.raises(NoSuchUpload):
        store.list_parts(ZIP, upload)
    with pytest.raises(NoSuchUpload):
        store.upload_part(ZIP, upload, 1, [b"x"])
    with pytest.raises(NoSuchUpload):
        store.complete_upload(ZIP, upload, [(1, "0" * 32)])


def test_a_part_uploaded_again_replaces_the_first(store: Store) -> None:
    upload = store.create_upload(ZIP, {})
    stale = store.upload_part(ZIP, upload, 1, [b"first"])
    fresh = store.upload_part(ZIP, upload, 1, [b"second"])
    assert store.list_parts(ZIP, upload) == [Part(1, fresh, 6)]
    with pytest.raises(InvalidPart):
        store.complete_upload(ZIP, upload, [(1, stale)])
    assert store.head(ZIP) is None
    store.complete_upload(ZIP, upload, [(1, fresh)])
    found = store.get(ZIP)
    assert found is not None
    assert found.body == b"second"


def test_a_missing_part_is_invalid(store: Store) -> None:
    upload = store.create_upload(ZIP, {})
    etag = store.upload_part(ZIP, upload, 1, [b"x"])
    with pytest.raises(InvalidPart):
        store.complete_upload(ZIP, upload, [(1, etag), (2, "0" * 32)])


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    query = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(query, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_presigned_get_with_range_and_if_match(client_store: Store, store: Store) -> None:
    etag = store.put(ZIP, b"0123456789")
    url = client_store.presign_get(ZIP)
    assert fetch(url) == (200, b"0123456789")
    assert fetch(url, Range="bytes=2-4") == (206, b"234")
    assert fetch(url, Range="bytes=2-4", **{"If-Match": f'"{etag}"'}) == (206, b"234")
    assert fetch(url, Range="bytes=2-4", **{"If-Match": '"other"'})[0] == 412
    store.delete(ZIP)
    assert fetch(url)[0] == 404


def test_presigned_url_of_somebody_without_the_right(client_store: Store, store: Store) -> None:
    store.put("builds/x.json", b"{}")
    assert fetch(client_store.presign_get("builds/x.json"))[0] == 403


def test_presigned_url_that_was_tampered_with(client_store: Store, store: Store) -> None:
    store.put(ZIP, b"x")
    store.put("datasets/y.zip", b"y")
    url = client_store.presign_get(ZIP)
    assert fetch(url.replace("x.zip", "y.zip"))[0] == 403


def test_presigned_url_expires(client_store: Store, store: Store) -> None:
    store.put(ZIP, b"x")
    url = client_store.presign_get(ZIP, expires_s=1)
    wait_until(lambda: fetch(url)[0] == 403, "the URL expires")


@pytest.mark.parametrize("expires_s", [0, PRESIGN_MAX_S + 1])
def test_presigned_url_lives_a_second_to_seven_days(store: Store, expires_s: int) -> None:
    with pytest.raises(ValueError, match="expires_s"):
        store.presign_get(ZIP, expires_s=expires_s)


def test_public_endpoint_is_the_signed_host(store: Store, root_config: Config) -> None:
    outside = Store(root_config._replace(public_endpoint="https://data.example.org"))
    assert outside.presign_get(ZIP).startswith("https://data.example.org/")


def test_listing_more_than_a_page_in_order(store: Store) -> None:
    names = [f"requests/x.{i:05d}.json" for i in range(1150)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b"{}"), reversed(names)))
    store.put("requests-not/x", b"")
    listed = list(store.entries("requests/"))
    assert [entry.name for entry in listed] == names
    assert {entry.size for entry in listed} == {2}
    assert {entry.etag for entry in listed} == {hashlib.md5(b"{}").hexdigest()}
    assert all(abs(entry.modified - time.time()) < 120 for entry in listed)


def test_a_listing_shows_what_was_just_written(store: Store) -> None:
    for number in range(50):
        name = f"requests/x.{number:03d}.json"
        store.put(name, b"{}")
        assert name in [entry.name for entry in store.entries("requests/")]


def test_names_with_the_characters_versions_may_have(store: Store) -> None:
    name = f"datasets/photos_1.0.0+local-2_{'0' * 32}.ready"
    store.put(name, b"{}")
    assert [entry.name for entry in store.entries("datasets/")] == [name]
    assert store.get(name) is not None


@contextmanager
def denied() -> Iterator[None]:
    with pytest.raises(AccessDenied) as caught:
        yield
    assert "access_key" in str(caught.value)


def test_wrong_credentials(store_server: object, root_config: Config) -> None:
    for wrong in (
        root_config._replace(secret_key="not-the-secret"),
        root_config._replace(access_key="nobody-we-know"),
    ):
        stranger = Store(wrong)
        for action in (
            lambda s=stranger: s.get("datasets/x.ready"),
            lambda s=stranger: s.head("datasets/x.ready"),
            lambda s=stranger: s.put("datasets/x.ready", b""),
            lambda s=stranger: list(s.entries("datasets/")),
        ):
            with denied():
                action()
        with pytest.raises(AccessDenied):
            stranger.upload_part(ZIP, "upload", 1, [b"x"])


def test_no_server(root_config: Config) -> None:
    nowhere = Store(root_config._replace(endpoint=f"http://127.0.0.1:{free_ports([0])[0]}"))
    with pytest.raises(StoreUnreachable, match=r"no answer from http://127\.0\.0\.1"):
        nowhere.get("datasets/x.ready")
    with pytest.raises(StoreUnreachable):
        nowhere.upload_part(ZIP, "upload", 1, [b"x"])


def test_no_bucket(root_config: Config) -> None:
    missing = Store(root_config._replace(bucket="t-not-made"))
    for action in (
        lambda: missing.get("datasets/x.ready"),
        lambda: missing.put("datasets/x.ready", b""),
        lambda: list(missing.entries("datasets/")),
    ):
        with pytest.raises(BucketMissing, match="t-not-made"):
            action()


def test_a_server_that_was_killed_and_comes_back(
    new_store: Callable[..., LocalStore],
) -> None:
    server = new_store()
    store = Store(server.config)
    etag = store.put("builds/x.json", b"1", if_none_match=True)
    server.kill()
    with pytest.raises(StoreUnreachable):
        store.get("builds/x.json")
    server.start()
    assert store.put("builds/x.json", b"2", if_match=etag)


def test_the_clock_is_the_servers(root_config: Config) -> None:
    store = Store(root_config, clock=lambda: 1000.0)
    assert store.now() == 1000.0
    store.get("datasets/x.ready")  # answers 404, which carries a date as well
    store.put("datasets/x.ready", b"{}")
    assert abs(store.now() - time.time()) < 5
