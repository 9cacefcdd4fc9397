"""One bad object in the bucket harms nobody but itself, on a real store with a real builder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dscache import Client, Dataset, Spec
from dscache.config import Config
from dscache.errors import IntegrityError, NotCached, ObjectTooLarge
from dscache.protocol import layout, manifests, markers
from dscache.protocol.manifests import MAX_BYTES, Live, Request
from dscache.store.s3 import Store
from support.datasets import publish, random_files
from support.running import Builder, client_environ, dscache, wait_until, write_spec

pytestmark = [pytest.mark.store, pytest.mark.system]
VICTIM = Spec.of("counting", "1.0.0", {"limit": 4})
BOMB = b"\x1f\x8b\x08\x00" + bytes(100)  # begins like gzip, and is none


def put_encoded(store: Store, name: str, body: bytes, encoding: str) -> None:
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    assert store._signed.send("PUT", name, headers=headers, body=body).status == 200


NAMES = {
    "request": layout.request(VICTIM.key, "bad"),
    "cancel": layout.cancel(VICTIM.key, "bad"),
    "stray cancel": layout.cancel(VICTIM.key, "nobody"),
    "claim": layout.claim(VICTIM.key),
    "ready": layout.ready(VICTIM.key),
    "failure": layout.failed(VICTIM.key, "bad"),
    "progress": layout.progress(VICTIM.key),
    "log": layout.log(VICTIM.key),
    "handler": layout.lock("other", "1.0.0"),
    "raw": layout.raw("counting"),
    "usage": f"usage/{VICTIM.key}/2026-01-01/x.json",
    "nonsense": "requests/nonsense",
    "no key": "requests/x.json",
}


def put_one_of_each(store: Store, encoding: str, body: bytes) -> None:
    for name in NAMES.values():
        put_encoded(store, name, body, encoding)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense", ""])
def test_builds_go_on_whatever_an_object_claims_to_be(
    encoding: str,
    store: Store,
    client_config: Config,
    new_builder: Callable[..., Builder],
    tmp_path: Path,
) -> None:
    put_one_of_each(store, encoding, BOMB)
    builder = new_builder().start()
    ran = dscache(client_config, "get", str(write_spec(tmp_path / "cfg.json", "counting")))
    assert ran.code == 0, ran.err + builder.text()
    assert len(list(Dataset(ran.out.strip()))) == 6
    for command in ("ls", "status"):
        arguments = [str(tmp_path / "cfg.json")] if command == "status" else []
        ran = dscache(client_config, command, *arguments)
        assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"schema": 99}', b"\xff\xfe", b"[" * 100_000, b"\0" * 1000],
)
def test_builds_go_on_whatever_an_object_holds(
    body: bytes,
    store: Store,
    client_config: Config,
    new_builder: Callable[..., Builder],
    tmp_path: Path,
) -> None:
    put_one_of_each(store, "", body)
    builder = new_builder().start()
    ran = dscache(client_config, "get", str(write_spec(tmp_path / "cfg.json", "counting")))
    assert ran.code == 0, ran.err + builder.text()
    assert dscache(client_config, "ls").code == 0


def request_of(spec: Spec, **members: object) -> bytes:
    document = {
        "schema": 1, "spec": spec.members, "nonce": "bad", "client": "c", "requested_at": 1.0,
    }  # fmt: skip
    return json.dumps({**document, **members}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (request_of(Spec.of("counting", "1.0.0", {})), "its spec has key"),
        (request_of(VICTIM, nonce="other"), "nonce 'other'"),
        (request_of(VICTIM, priority=10**18), "priority"),
        (request_of(VICTIM, priority=-1), "priority"),
        (request_of(VICTIM, client="x" * (2 << 20)), "larger than"),
        (request_of(VICTIM).replace(b'"limit": 4', b'"limit": 1152921504606846976'), "2^53"),
    ],
    ids=["key", "nonce", "priority", "negative", "size", "integer"],
)
def test_a_bad_request_is_answered_and_its_neighbour_is_built(
    body: bytes,
    message: str,
    store: Store,
    client_config: Config,
    new_builder: Callable[..., Builder],
) -> None:
    store.put(layout.request(VICTIM.key, "bad"), body)
    with pytest.raises(IntegrityError, match=re.escape(message)):
        markers.read_request(store, VICTIM.key, "bad")
    new_builder().start()
    topic = Client(client_config).request(VICTIM)
    assert Client(client_config).wait(topic, timeout_s=60)
    assert wait_until(lambda: not list(store.entries(layout.REQUESTS)), "all are answered")


def test_a_key_is_answered_with_its_own_dataset_or_not_at_all(
    store: Store, client_config: Config
) -> None:
    """A request under the victim's key, with the spec of a dataset that is ready."""
    other = publish(store, random_files([1000]))
    evil = Request(spec=other.spec, nonce="bad", client="c", requested_at=1.0)
    store.put(layout.request(VICTIM.key, "bad"), manifests.encode(evil))
    with pytest.raises(NotCached):
        Client(client_config).get(VICTIM.key)
    with pytest.raises(IntegrityError, match="its spec has key"):
        Client(client_config).wait(f"{VICTIM.key}.bad", timeout_s=5)
    assert not (client_config.home / "datasets" / VICTIM.key).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zip_etag": "a\nb"}, "etag"),
        ({"zip_etag": "é"}, "etag"),
        ({"zip_key": "datasets/other.zip"}, "names the zip"),
        ({"generation": -1}, "generation -1"),
        ({"members": []}, "empty"),
    ],
)
def test_a_marker_that_describes_no_zip_is_refused_when_it_is_read(
    changes: dict[str, object], message: str, store: Store, client_config: Config
) -> None:
    live = publish(store, random_files([1000, 1000]))
    store.put(layout.ready(live.spec.key), manifests.encode(_changed(live, changes)))
    with pytest.raises(IntegrityError, match=message):
        markers.read_ready(store, live.spec.key)
    ran = dscache(client_config, "get", live.spec.key)
    assert ran.code == 8, ran.err
    assert "Traceback" not in ran.err
    assert dscache(client_config, "ls").code == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "../x"},
        {"records": -1},
        {"size": -1},
        {"name": "PHOTOS-train.tfrecord-00000-of-00002"},
        {"name": "a\x1b[2J"},
        {"offset": 0},
    ],
)
def test_members_that_cannot_be_are_refused(changes: dict[str, object], store: Store) -> None:
    live = publish(store, random_files([1000, 1000]))
    live.members[1] = msgspec.structs.replace(live.members[1], **changes)
    store.put(layout.ready(live.spec.key), manifests.encode(live))
    with pytest.raises(IntegrityError, match="member"):
        markers.read_ready(store, live.spec.key)


def _changed(live: Live, changes: dict[str, object]) -> Live:
    return msgspec.structs.replace(live, **changes)


def test_objects_are_read_up_to_their_limit(store: Store) -> None:
    store.put("datasets/x", bytes(2000))
    found = store.get("datasets/x", limit_bytes=2000)
    assert found is not None and found.body == bytes(2000)
    with pytest.raises(ObjectTooLarge, match=r"datasets/x: larger than the 2\.0 KiB"):
        store.get("datasets/x", limit_bytes=1999)
    assert store.get("datasets/x", limit_bytes=2000) is not None  # over another connection


def test_every_kind_of_object_has_a_limit() -> None:
    kinds = {kind for kind in vars(manifests).values() if isinstance(kind, type)}
    stored = {
        kind for kind in kinds
        if issubclass(kind, manifests.Manifest) and kind is not manifests.Manifest
    }  # fmt: skip
    in_ready = {manifests.Live, manifests.Retired, manifests.Alias}
    assert stored - in_ready == set(MAX_BYTES) - {manifests.Ready}


def bombs(live: Live) -> dict[str, bytes]:
    """Markers of the largest size, whose text is small for what it decodes to."""
    head = manifests.encode(live).rstrip().removesuffix(b"}")
    room = MAX_BYTES[manifests.Ready] - len(head) - 100
    deep = b"[" * 500 + b"]" * 500 + b","
    lists = {
        "flat": b"[]," * (room // 3),
        "objects": b"{}," * (room // 3),
        "deep": deep * (room // len(deep)),
        "numbers": b"1," * (room // 2),
    }
    features = {name: b',"features":{"a":[' + text + b"0]}}" for name, text in lists.items()}
    twice = b',"features":{"a":[' + lists["flat"] + b'0]},"features":{}}'
    return {name: head + text for name, text in {**features, "twice": twice}.items()}


MEASURED = r"""
import atexit, re
from dscache.cli import main
def report():  # not ru_maxrss, which starts with that of the process that started this one
    print("peak", int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) >> 10)
atexit.register(report)
main()
"""


def peak_mib(config: Config, *arguments: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True, text=True, env=client_environ(config), cwd="/", check=False,
    )  # fmt: skip
    assert "Traceback" not in ran.stderr, ran.stderr
    return int(ran.stdout.rpartition("peak ")[2])


@pytest.mark.parametrize("kind", ["flat", "objects", "deep", "numbers", "twice"])
def test_a_marker_takes_no_more_memory_than_a_few_times_its_size(
    kind: str, store: Store, client_config: Config
) -> None:
    live = publish(store, random_files([1000]))
    store.put(layout.ready(live.spec.key), bombs(live)[kind])
    with pytest.raises(IntegrityError, match="more values"):
        markers.read_ready(store, live.spec.key)
    assert peak_mib(client_config, "status", live.spec.key) < 400
    assert peak_mib(client_config, "ls") < 400


def large(live: Live, shards: int) -> Live:
    """The marker, with many empty shards in its table."""
    [member, *others] = live.members
    table = [
        msgspec.structs.replace(
            member, name=f"a-train.tfrecord-{index:05d}-of-{shards}", offset=0, size=0
        )
        for index in range(shards)
    ]
    return msgspec.structs.replace(live, members=[*table, member, *others])


def test_large_markers_are_listed_one_at_a_time(store: Store, client_config: Config) -> None:
    shards = 100_000
    for number in range(6):
        live = large(publish(store, random_files([1000]), config={"n": number}), shards)
        store.put(layout.ready(live.spec.key), manifests.encode(live))
    ran = dscache(client_config, "ls", "--json")
    assert [each["shards"] for each in json.loads(ran.out)["datasets"]] == [shards + 1] * 6
    assert peak_mib(client_config, "ls") < 350
