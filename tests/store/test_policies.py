"""What the two users may do, shown by real refusals of a real server."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.devstack import users
from dscache.devstack.localstore import LocalStore
from dscache.errors import AccessDenied, StoreError
from dscache.protocol.layout import archive, claim, lock, progress, raw, ready, request
from dscache.store.notifications import Connected, Created, Listener, Signal, Unsupported
from dscache.store.s3 import Store

pytestmark = pytest.mark.store
KEY = f"photos_1.0.0_{'0' * 32}"
PATIENCE_S = 15.0
NAMES = {
    "request": request(KEY, "n1"),
    "claim": claim(KEY),
    "ready": ready(KEY),
    "zip": archive(KEY, 0),
    "progress": progress(KEY),
    "lock": lock("photos", "1.0.0"),
    "raw": raw("photos"),
    "usage": f"usage/{KEY}/2026-01-01/u1.json",
    "elsewhere": "notes/private.txt",
}


@pytest.fixture(autouse=True)
def one_of_each(store: Store) -> None:
    for name in NAMES.values():
        store.put(name, b"{}")


def refused(action: Callable[[], object]) -> bool:
    """Whether the server answers 403; another error is raised."""
    try:
        action()
    except AccessDenied:
        return True
    return False


def allowed(action: Callable[[str], object]) -> list[str]:
    """The kinds of object the action is allowed on."""
    return [kind for kind, name in NAMES.items() if not refused(partial(action, name))]


def test_client_reads_all_but_claims(client_store: Store) -> None:
    readable = ["request", "ready", "zip", "progress", "lock", "raw", "usage"]
    assert allowed(client_store.get) == readable
    assert allowed(client_store.head) == readable


def test_client_writes_requests_and_usage_only(client_store: Store) -> None:
    assert allowed(lambda name: client_store.put(name, b"{}")) == ["request", "usage"]


def test_client_deletes_nothing(client_store: Store, store: Store) -> None:
    assert allowed(client_store.delete) == []
    assert [entry.name for entry in store.entries("")] == sorted(NAMES.values())


def test_client_cannot_upload_in_parts_to_datasets(client_store: Store) -> None:
    assert refused(lambda: client_store.create_upload(archive(KEY, 1), {}))


@pytest.mark.parametrize("prefix", ["requests/", f"datasets/{KEY}.", "handlers/", "raw/", "usage/"])
def test_client_lists_what_it_may_read(client_store: Store, prefix: str) -> None:
    expected = sorted(name for name in NAMES.values() if name.startswith(prefix))
    assert [entry.name for entry in client_store.entries(prefix)] == expected


@pytest.mark.parametrize("prefix", ["", "builds/", "d", "notes/"])
def test_client_lists_nothing_else(client_store: Store, prefix: str) -> None:
    assert refused(lambda: list(client_store.entries(prefix)))


def test_client_may_see_the_top_folders(client_store: Store, bucket: str) -> None:
    """The console begins there; names below a folder need that folder's prefix."""
    answer = client_store._client.list_objects_v2(Bucket=bucket, Delimiter="/", Prefix="")
    assert [item["Prefix"] for item in answer["CommonPrefixes"]] == sorted(
        {f"{name.partition('/')[0]}/" for name in NAMES.values()}
    )
    assert "Contents" not in answer


def test_a_missing_object_is_missing_and_not_forbidden(
    client_store: Store, builder_store: Store
) -> None:
    assert client_store.get(ready(f"photos_1.0.0_{'1' * 32}")) is None
    assert client_store.head(request(KEY, "n2")) is None
    assert builder_store.get(claim(f"photos_1.0.0_{'1' * 32}")) is None


def test_builder_reads_and_writes_every_folder_of_the_protocol(builder_store: Store) -> None:
    everything = [kind for kind in NAMES if kind != "elsewhere"]
    assert allowed(builder_store.get) == everything
    assert allowed(lambda name: builder_store.put(name, b"{}")) == everything


def test_builder_deletes_one_shot_objects_and_never_registers(builder_store: Store) -> None:
    assert allowed(builder_store.delete) == ["request", "zip", "progress", "usage"]


def test_builder_uploads_in_parts(builder_store: Store) -> None:
    name = archive(KEY, 1)
    upload = builder_store.create_upload(name, {"nonce": "n"})
    etag = builder_store.upload_part(name, upload, 1, [b"data"])
    assert [part.etag for part in builder_store.list_parts(name, upload)] == [etag]
    builder_store.complete_upload(name, upload, [(1, etag)])
    assert builder_store.head(name) is not None
    other = builder_store.create_upload(name, {})
    builder_store.abort_upload(name, other)
    assert refused(lambda: builder_store.create_upload("notes/x.zip", {}))


def test_builder_lists_the_bucket(builder_store: Store) -> None:
    assert [entry.name for entry in builder_store.entries("")] == sorted(NAMES.values())


@pytest.mark.parametrize("role", ["client", "builder"])
def test_both_may_listen(role: str, store_server: LocalStore, bucket: str, store: Store) -> None:
    config = getattr(store_server, f"{role}_config")._replace(bucket=bucket)
    signals: queue.Queue[Signal] = queue.Queue()
    with Listener(config, "datasets/", signals.put):
        assert signals.get(timeout=PATIENCE_S) == Connected()
        store.put(NAMES["ready"], b"[]")
        created = signals.get(timeout=PATIENCE_S)
    assert isinstance(created, Created)
    assert created.name == NAMES["ready"]


def test_listening_needs_the_right_to_it(store_server: LocalStore, store: Store) -> None:
    """In a bucket outside the users' pattern even a listener is refused."""
    store_server.create_bucket("private")
    signals: queue.Queue[Signal] = queue.Queue()
    with Listener(store_server.client_config._replace(bucket="private"), "x", signals.put):
        signal = signals.get(timeout=PATIENCE_S)
    assert isinstance(signal, Unsupported)
    assert "AccessDenied" in signal.reason


@pytest.mark.parametrize("role", ["client", "builder"])
def test_neither_may_administer(role: str, store_server: LocalStore) -> None:
    config: Config = getattr(store_server, f"{role}_config")
    client = Store(config)._client
    actions: tuple[Callable[[], object], ...] = (
        lambda: client.create_bucket(Bucket="t-made-by-a-user"),
        lambda: client.delete_bucket(Bucket=store_server.bucket),
        lambda: client.put_bucket_policy(Bucket=store_server.bucket, Policy="{}"),
    )
    for action in actions:
        with pytest.raises(client.exceptions.ClientError) as caught:
            action()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize("role", ["client", "builder"])
def test_neither_reads_another_bucket(role: str, store_server: LocalStore) -> None:
    store_server.create_bucket("private")
    other = Store(getattr(store_server, f"{role}_config")._replace(bucket="private"))
    assert refused(lambda: other.get(NAMES["ready"]))
    assert refused(lambda: list(other.entries("datasets/")))


@pytest.mark.parametrize("role", ["client", "builder"])
def test_policies_name_the_bucket_and_no_placeholder(role: users.Role) -> None:
    policy = users.policy(role, "pictures")
    resources: Sequence[str] = [r for s in policy["Statement"] for r in s["Resource"]]
    assert {name.partition("/")[0] for name in resources} == {"arn:aws:s3:::pictures"}
    listen = [s for s in policy["Statement"] if "s3:ListenBucketNotification" in s["Action"]]
    assert [s["Action"] for s in listen] == [["s3:ListenBucketNotification"]]
    assert "Condition" not in listen[0]


def test_the_set_up_that_the_documentation_shows(
    new_store: Callable[[], LocalStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_store()
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    for name, value in (
        ("STORE_ENDPOINT", server.endpoint),
        ("STORE_ROOT_USER", server.config.access_key),
        ("STORE_ROOT_PASSWORD", server.config.secret_key),
        ("CLIENT_SECRET", "another-client-secret"),
        ("BUILDER_SECRET", "another-builder-secret"),
    ):
        monkeypatch.setenv(name, value)
    exec(compile(code, "docs/operations.md", "exec"), {})
    client = Store(server.client_config._replace(secret_key="another-client-secret"))
    builder = Store(server.builder_config._replace(secret_key="another-builder-secret"))
    builder.put(NAMES["ready"], b"{}")
    assert client.get(NAMES["ready"]) is not None
    assert refused(lambda: client.put(NAMES["ready"], b"{}"))


def test_a_refusal_says_who_and_where(client_store: Store, client_config: Config) -> None:
    with pytest.raises(StoreError) as caught:
        client_store.delete(NAMES["ready"])
    assert client_config.endpoint in str(caught.value)
    assert client_config.access_key in str(caught.value)
    assert client_config.secret_key not in str(caught.value)
