"""The decoders of `dscache`."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any, cast

import tomli_w

from dscache import canonical, catalog, config, spec, trust
from dscache.cache.cache import Cache
from dscache.cli import get as cli_get
from dscache.cli import ls as cli_ls
from dscache.cli.progress import Display
from dscache.config import Config
from dscache.devstack import builderfile, profile, record
from dscache.devstack.errors import StackError
from dscache.download import ranges
from dscache.errors import ConfigError, IntegrityError, SpecError, StoreError, UsageError
from dscache.folder import contents, selection
from dscache.protocol import buildlog, layout, manifests, markers, wait
from dscache.protocol.manifests import Live, Progress
from dscache.reading.dataset import Dataset
from dscache.spec import Spec
from dscache.store import listing, notifications, s3errors
from dscache.store.objects import Objects
from dscache.store.response import Response
from dscache.store.s3 import Store
from dscache.units import parse_bytes
from dscache.verify import verify, zipcheck
from dscache.verify.recordcheck import RecordCheck
from dscache_sdk.errors import FeatureError
from fuzz.inputs import FOLDER, OneObject, drained, in_file, text, value
from fuzz.running import Decoder
from support.datasets import described, example_files, zip_of

SPEC = Spec.of("photos", "1.0.0", {"image_size": [64, 64], "rotation": 0.5, "name": "é"}, "r1")
CONFIG = Config(endpoint="http://store.example:9000", bucket="b", access_key="a", secret_key="s")
FILES = example_files(FOLDER, {"train": [3, 3], "val": [2]})
ZIP = zip_of(FILES)


def _live() -> Live:
    features = json.loads(FILES["features.json"])
    return described(
        FILES,
        spec=SPEC,
        zip_key=layout.archive(SPEC.key, 0),
        features=features,
        bad_samples=[manifests.BadSample(sample="a.jpg", error="OSError: truncated")],
        timings=manifests.Timings(build_s=3.5, finished_at=1e9),
    )


LIVE = _live()
MANIFESTS: dict[Any, tuple[manifests.Manifest, ...]] = {
    manifests.Request: (
        manifests.Request(spec=SPEC, nonce="n", client="c", requested_at=1.0, priority=9),
    ),
    manifests.Cancel: (manifests.Cancel(nonce="n", client="c", cancelled_at=1.0),),
    manifests.Ready: (
        LIVE,
        manifests.Retired(spec=SPEC, generation=1, nonce="n", retired_at=2.0, reason="r"),
        manifests.Alias(key=SPEC.key, spec=SPEC, nonce="n"),
    ),
    manifests.Failure: (
        manifests.Failure(kind="handler", message="m", nonce="n", failed_at=1.0, traceback="t"),
    ),
    manifests.Progress: (
        manifests.Progress(
            phase="building", done=1, total=2, bytes=3, remaining_s=4.0, expires_at=5.0
        ),
    ),
    manifests.Checkpoint: (
        manifests.Checkpoint(
            owner="o",
            nonce="n",
            counter=1,
            expires_at=2.0,
            parts=[
                manifests.PartRecord(
                    number=1,
                    size=10,
                    etag="0" * 32,
                    shards=[
                        manifests.ShardRecord(
                            name="a", size=1, crc32=2, digest="d", records=3, split="train"
                        )
                    ],
                )
            ],
            seal=manifests.Seal(zip_etag="e", zip_size=1, members=list(LIVE.members)),
        ),
    ),
    manifests.HandlerVersion: (
        manifests.HandlerVersion(
            dataset_name="photos",
            handler_version="1.0.0",
            lock=manifests.Lock(source="a==1", requirements="a==1", python="3.11"),
            options={"a": {"type": "integer"}},
        ),
    ),
    manifests.RawRevision: (manifests.RawRevision(revision="r", files=1, bytes=2, seen_at=3.0),),
    manifests.Usage: (manifests.Usage(client="c", downloaded_at=1.0, bytes=2, seconds=3.0),),
}
USER_FILE = tomli_w.dumps(
    {
        "profile": "lab",
        "cache_limit": "200 GB",
        "shared_homes": ["/a", "/b"],
        "profiles": {
            "lab": {
                "endpoint": "https://store.example",
                "bucket": "b",
                "access_key": "a",
                "secret_key": "s",
                "home": "~/cache",
                "client_name": "me",
            }
        },
    }
).encode()
EVENT = json.dumps(
    {
        "EventName": "s3:ObjectCreated:Put",
        "Key": f"b/datasets/{SPEC.key}.progress",
        "Records": [
            {
                "s3": {
                    "bucket": {"name": "b"},
                    "object": {
                        "key": f"datasets/{SPEC.key}.progress",
                        "size": 2,
                        "userMetadata": {
                            "X-Amz-Meta-Progress": manifests.encode(
                                MANIFESTS[manifests.Progress][0]
                            ).decode(),
                            "content-type": "application/json",
                        },
                    },
                }
            }
        ],
    }
).encode()
LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    "<NextContinuationToken>t</NextContinuationToken><Contents>"
    f"<Key>datasets/{SPEC.key}.ready</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&#34;e&#34;</ETag><Size>12</Size></Contents></ListBucketResult>"
).encode()
ERROR = b"<Error><Code>NoSuchKey</Code><Message>It&#39;s not &lt;there&gt;</Message></Error>"
HEADERS = b'etag: "e"\ncontent-length: 12\ndate: Thu, 26 Nov 2026 08:00:00 GMT\nx-amz-meta-a: b\n'


def _show(live: Live) -> None:
    """What `ls` and `show` print of a marker."""
    summary = catalog.summary(live)
    cli_ls.line(summary, local=False)
    json.dumps(summary, default=str)
    for member in live.members:
        json.dumps(member.name)
    drained(verify.marker_problems(live, live.spec.key))


def _read_marker(data: bytes) -> None:
    ready = markers.read_ready(cast("Objects", OneObject(data)), SPEC.key)
    if isinstance(ready, Live):
        _show(ready)
        assert ready.spec.key == SPEC.key


def _decode_manifest(kind: Any, data: bytes) -> None:
    manifest = manifests.decode(data, kind, where="object")
    manifests.encode(manifest)
    if isinstance(manifest, Progress):
        _display(manifest)


def _display(progress: Progress) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Display(stream=stream).progress(progress)


def _read_each(data: bytes) -> None:
    """The readers of `markers`, whatever kind of object it is."""
    store = cast("Objects", OneObject(data))
    for read in (
        lambda: markers.read_request(store, SPEC.key, "n"),
        lambda: markers.read_cancel(store, SPEC.key, "n"),
        lambda: markers.read_failure(store, SPEC.key, "n"),
        lambda: markers.read_checkpoint(store, SPEC.key),
        lambda: markers.read_handler_version(store, "photos", "1.0.0"),
    ):
        try:
            read()
        except IntegrityError:
            continue
    markers.read_progress(store, SPEC.key)
    markers.read_raw_revision(store, "photos")


def _event(data: bytes) -> None:
    for created in notifications.parse_line(data):
        layout.parse_ready(created.name)
        progress = wait.progress_of(created.metadata)
        if progress is not None:
            _display(progress)


def _names(data: bytes) -> None:
    name = text(data)
    for parse in (
        layout.parse_request,
        layout.parse_cancel,
        layout.parse_failure,
        layout.parse_claim,
        layout.parse_archive,
        layout.parse_ready,
        layout.key_in,
        canonical.split_key,
    ):
        parse(name)


def _response(data: bytes) -> None:
    """What the store makes of a response's headers."""
    lines = [line.partition(":") for line in data.decode("latin-1").split("\n")]
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    response = Response(200, headers, b"")
    store = Store(CONFIG)
    store._signed.send = lambda *_, **__: response  # type: ignore[method-assign]
    for call in (store.head, store.get, lambda name: store.put(name, b"")):
        call("name")


def _error_body(data: bytes) -> None:
    s3errors.parse_error(data)
    source = ranges.Source(lambda: "", name="n", etag="e", size=1)
    for status in (200, 301, 403, 404, 412, 416, 500):
        s3errors.error_of_response(status, data, "name", CONFIG)
        ranges.refusal(status, data, source)


def _user_file(data: bytes) -> None:
    path = in_file("config/config.toml", data)
    environ = {"DSCACHE_CONFIG": str(path), "HOME": str(FOLDER)}
    loaded = config.load(environ=environ, cwd=FOLDER)
    if loaded.endpoint:
        _use(loaded)


def _environment(data: bytes) -> None:
    """A JSON object of variables."""
    document = value(data)
    if isinstance(document, dict):
        given = {name: item for name, item in document.items() if isinstance(item, str)}
        _use(config.load(environ={"HOME": str(FOLDER), **given}, cwd=FOLDER))


def _use(loaded: Config) -> None:
    """What a first command does with settings, without a network."""
    for home in (loaded.home, *loaded.shared_homes):
        Cache(home).has(SPEC.key)
    if loaded.access_key:
        Store(loaded)._signed.prepare("GET", "a", query={})
        Store(loaded).presign_get("a")
    manifests.encode(manifests.Cancel(nonce="n", client=loaded.client_name, cancelled_at=1.0))


def _trusted(data: bytes) -> None:
    in_file("trust/trusted.json", data)
    project = in_file("trust/dscache.toml", b"")
    trust.is_trusted(project, FOLDER / "trust")
    trust.revoke(project, FOLDER / "trust")


def _folder(data: bytes) -> None:
    """A dataset's folder with this manifest, as a cache hit and as a Dataset read it."""
    folder = in_file(f"home/datasets/{SPEC.key}/manifest.json", data).parent
    (folder / "partial.json").unlink(missing_ok=True)
    if not contents.usable(folder):
        return
    drained(contents.wrong_files(folder, None))
    live = contents.read_manifest(folder)
    selection.folder_has(folder, selection.Selection.of(["train"], [0]))
    contents.check_members(live)
    with_files = Dataset(folder, lock=None)
    _ = with_files.key, with_files.info, with_files.files(), repr(with_files)
    json.dumps(with_files.info)


def _partial(data: bytes) -> None:
    folder = in_file(f"home/datasets/{SPEC.key}/partial.json", data).parent
    in_file(f"home/datasets/{SPEC.key}/manifest.json", manifests.encode(LIVE))
    held = contents.read_contents(folder)
    if held is not None:
        contents.is_complete(held)
        contents.held_names(LIVE, held)
        selection.Selection().is_covered_by(held)
        contents.encode(held)
        drained(contents.wrong_files(folder, held))


def _features_file(data: bytes) -> None:
    folder = in_file("features/features.json", data).parent
    in_file("features/manifest.json", manifests.encode(LIVE))
    for feature in Dataset(folder, lock=None).features.values():
        repr(feature)


def _zip_tail(data: bytes) -> None:
    last = LIVE.members[-1]
    drained(zipcheck.directory_problems(data, last.offset + last.size, LIVE.members))


def _zip_header(data: bytes) -> None:
    drained(zipcheck.local_problems(data, LIVE.members[0]))


def _records(data: bytes) -> None:
    check = RecordCheck(len(data))
    for at in range(0, len(data), 4096):
        check.update(memoryview(data)[at : at + 4096])
    check.finish()


def _documents(name: str, data: bytes) -> None:
    drained(verify.document_problems(LIVE, {name: data}))


def _stack(data: bytes) -> None:
    in_file("stack/stack.json", data)
    found = record.read_record(FOLDER / "stack")
    record.write_record(FOLDER / "stack", found)


def _credentials(data: bytes) -> None:
    in_file("stack/credentials.json", data)
    record.credentials(FOLDER / "stack")


def _profile(data: bytes) -> None:
    path = in_file("profile/config.toml", data)
    profile.read(path, "lab")
    profile.remove(path, "lab", "nowhere")
    config.write_profile(path, "lab", {"endpoint": "http://a"})
    config.remove_profile(path, "lab")


def _builder_file(data: bytes) -> None:
    path = in_file("stack/builder.toml", data)
    builderfile.add_datasets(path, {"photos": FOLDER})


def _content_range(data: bytes) -> None:
    ranges.parse_content_range(data.decode("latin-1"))


def _config_file(data: bytes) -> None:
    path = in_file("cfg.json", data)
    assert canonical.form(canonical.load(path)) == spec.load_spec(path).canonical
    assert spec.parse_spec(data).key


def _members(data: bytes) -> None:
    assert spec.from_members(value(data)).key


def _follow(data: bytes) -> None:
    follower = buildlog.Follower()
    follower.new(data[: len(data) // 2])
    follower.new(data)
    buildlog.text_of(data)


def _path(data: bytes) -> None:
    canonical.load(text(data))


def _stack_files() -> tuple[bytes, bytes]:
    from dscache.devstack.process import Process

    folder = FOLDER / "made"
    folder.mkdir(exist_ok=True)
    binary = record.Binary("/usr/bin/minio", 1, 2)
    process = Process(1234, 5678, "boot")
    record.write_record(folder, record.Record(server=process, binary=binary, rejected=[binary]))
    record.credentials(folder)
    return (folder / "stack.json").read_bytes(), (folder / "credentials.json").read_bytes()


def _tail() -> bytes:
    last = LIVE.members[-1]
    return ZIP[last.offset + last.size :]


def _builder_toml() -> bytes:
    path = FOLDER / "made" / "builder.toml"
    builderfile.write_new(path, state=Path("state"), wheels=None, store=CONFIG)
    builderfile.add_datasets(path, {"photos": FOLDER})
    return path.read_bytes()


def table() -> list[Decoder]:
    """The decoders of `dscache`."""
    stack, credentials = _stack_files()
    builder_toml = _builder_toml()
    (FOLDER / "datasets").mkdir(exist_ok=True)
    all_manifests = {kind: tuple(map(manifests.encode, made)) for kind, made in MANIFESTS.items()}
    every = tuple(body for made in all_manifests.values() for body in made)
    variables = json.dumps(
        {
            "DSCACHE_ENDPOINT": "http://a",
            "DSCACHE_ACCESS_KEY": "a",
            "DSCACHE_SECRET_KEY": "s",
            "DSCACHE_SESSION_TOKEN": "t",
            "DSCACHE_BUCKET": "b",
            "DSCACHE_REGION": "r",
            "DSCACHE_HOME": str(FOLDER),
            "DSCACHE_SHARED_HOMES": f"{FOLDER}:/b",
            "DSCACHE_CACHE_LIMIT": "200GB",
            "DSCACHE_CLIENT_NAME": "me",
            "DSCACHE_PUBLIC_ENDPOINT": "http://b",
        }
    ).encode()
    bad_bucket, bad_store = (IntegrityError,), (StoreError,)
    return [
        Decoder(
            "config-file", _config_file, (SpecError,), (json.dumps(SPEC.members).encode(),), "json",
            (
                "dscache.canonical.load", "dscache.canonical.parse", "dscache.spec.load_spec",
                "dscache.spec.parse_spec",
            ),
        ),
        Decoder(
            "config-members", _members, (SpecError,), (json.dumps(SPEC.members).encode(),), "json",
            (),
        ),
        Decoder("config-path", _path, (SpecError,), (str(in_file(
            "valid.json", json.dumps(SPEC.members).encode())).encode(),), "text", ()),
        *(
            Decoder(
                f"manifest-{kind.__name__ if isinstance(kind, type) else 'Ready'}",
                functools.partial(_decode_manifest, kind), bad_bucket, seeds, "json",
                (
                    "dscache.protocol.manifests.decode", "dscache.protocol.manifests.decode_ready",
                    "dscache.protocol.manifests.decode_known",
                ),
            )
            for kind, seeds in all_manifests.items()
        ),
        Decoder(
            "ready-marker", _read_marker, bad_bucket, all_manifests[manifests.Ready], "json",
            ("dscache.protocol.markers.read_ready", "dscache.protocol.markers.read_ready_register"),
        ),
        Decoder(
            "objects", _read_each, (), every, "json",
            tuple(
                f"dscache.protocol.markers.read_{name}"
                for name in (
                    "request", "cancel", "failure", "checkpoint", "handler_version", "progress",
                    "raw_revision", "known",
                )
            ),
        ),
        Decoder(
            "object-names", _names, (),
            tuple(
                name.encode()
                for name in (
                    layout.request(SPEC.key, "n"), layout.cancel(SPEC.key, "n"),
                    layout.failed(SPEC.key, "n"), layout.archive(SPEC.key, 2),
                    layout.ready(SPEC.key), layout.claim(SPEC.key),
                )
            ),
            "text",
            tuple(
                f"dscache.protocol.layout.parse_{kind}"
                for kind in ("request", "cancel", "failure", "archive", "ready", "claim")
            ),
        ),
        Decoder(
            "topic", lambda data: wait.split_topic(text(data)), (UsageError,),
            (f"{SPEC.key}.nonce".encode(),), "text", (),
        ),
        Decoder(
            "event", _event, (), (EVENT,), "json", ("dscache.store.notifications.parse_line",)
        ),
        Decoder(
            "build-log", _follow, (), (b"[build 1f2e3d4c, log from byte 12]\nwords\n",), "text", ()
        ),
        Decoder(
            "listing", lambda data: listing.parse_page(data, "p"), bad_store, (LISTING,), "text",
            ("dscache.store.listing.parse_page",),
        ),
        Decoder(
            "error-body", _error_body, (), (ERROR,), "text",
            ("dscache.store.s3errors.parse_error",),
        ),
        Decoder("headers", _response, bad_store, (HEADERS,), "text",
            ("dscache.store.response.parse_etag",),
       ),
        Decoder(
            "content-range", _content_range, (), (b"bytes 0-9/100", b"bytes 0-9/*"), "text",
            ("dscache.download.ranges.parse_content_range",),
        ),
        Decoder(
            "user-file", _user_file, (UsageError,), (USER_FILE,), "toml", ("dscache.config.load",)
        ),
        Decoder("variables", _environment, (UsageError,), (variables,), "json", ()),
        Decoder(
            "size", lambda data: parse_bytes(text(data)), (UsageError,), (b"1.5 TiB", b"12"),
            "text", ("dscache.units.parse_bytes",),
        ),
        Decoder(
            "trusted", _trusted, (ConfigError,),
            (json.dumps({"schema": 1, "files": {str(FOLDER): "0" * 64}}).encode(),), "json", (),
        ),
        Decoder(
            "manifest-file", _folder, (IntegrityError, UsageError), (manifests.encode(LIVE),),
            "json", ("dscache.folder.contents.read_manifest",),
        ),
        Decoder(
            "partial-file", _partial, bad_bucket,
            (contents.encode({"train": contents.SplitContents(2, frozenset([1]))}),), "json",
            ("dscache.folder.contents.read_contents",),
        ),
        Decoder(
            "features-file", _features_file, (IntegrityError, FeatureError),
            (FILES["features.json"],), "json", (),
        ),
        Decoder("zip-directory", _zip_tail, (), (_tail(),), "binary", ()),
        Decoder("zip-header", _zip_header, (), (ZIP[: LIVE.members[0].offset],), "binary", ()),
        Decoder("record-check", _records, (), (FILES[LIVE.members[0].name],), "binary", ()),
        *(
            Decoder(f"verified-{name}", functools.partial(_documents, name), (), (FILES[name],),
                    "json", ())
            for name in ("dataset_info.json", "features.json")
        ),
        Decoder(
            "stack-record", _stack, (StackError,), (stack,), "json",
            ("dscache.devstack.record.read_record",),
        ),
        Decoder("stack-credentials", _credentials, (StackError,), (credentials,), "json", ()),
        Decoder(
            "profile", _profile, (ConfigError,), (USER_FILE,), "toml",
            (
                "dscache.devstack.profile.read", "dscache.config.read_toml",
                "dscache.config.read_settings",
            ),
        ),
        Decoder(
            "stack-builder-file", _builder_file, (UsageError,), (builder_toml,), "toml", ()
        ),
        Decoder(
            "raw-argument", lambda data: builderfile.parse_raw((text(data),)), (UsageError,),
            (f"photos={FOLDER}".encode(),), "text", ("dscache.devstack.builderfile.parse_raw",),
        ),
        Decoder(
            "shards-argument", lambda data: cli_get.parse_shards(text(data)), (UsageError,),
            (b"0-3,7",), "text", ("dscache.cli.get.parse_shards",),
        ),
    ]  # fmt: skip
