"""What others wrote is refused with the documented error: what is wrong, where, what to do.

Each of these raised another exception once, or took minutes. `tests/fuzz` looks for more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dscache import canonical, config, spec
from dscache.config import Config
from dscache.devstack import builderfile, profile, record
from dscache.devstack.errors import StackError
from dscache.download.ranges import parse_content_range
from dscache.errors import ConfigError, IntegrityError, SpecError, StoreError, UsageError
from dscache.folder import contents
from dscache.protocol import buildlog, manifests, wait
from dscache.protocol.manifests import Live, Progress, Request
from dscache.reading.dataset import Dataset
from dscache.spec import Spec
from dscache.store import listing, notifications, s3errors
from dscache.store.response import Response
from dscache.store.signed_http import SignedHttp
from dscache.terminal import printable
from dscache.units import parse_bytes
from dscache.verify.verify import document_problems
from dscache_sdk.errors import FeatureError
from support.datasets import MEMBER, described
from support.measured import unmeasured

MANY_DIGITS = "9" * 5000
SPEC = Spec.of("photos", "1.0.0", {"size": 4})
DEEP = "[" * 100_000


def short(value: object) -> str:
    """The name of a parameter: some have thousands of digits or brackets."""
    return "number" if isinstance(value, int) else ascii(value)[:30]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(tmp_path: Path, text: str | bytes = "", **variables: str) -> Config:
    path = written(tmp_path / "config.toml", text)
    environ = {"HOME": str(tmp_path), "DSCACHE_CONFIG": str(path), **variables}
    return config.load(environ=environ, cwd=tmp_path)


@pytest.mark.parametrize("path", ["a\0b.json", "\ud800.json", "x" * 300], ids=short)
def test_a_path_that_no_file_has(path: str) -> None:
    with pytest.raises(SpecError, match=r"a\\x00b|\\ud800|x: "):
        canonical.load(path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (10**5000, "integer of 16610 bits is beyond"),
        ("\ud800", "lone surrogate"),
        ({"a" * 500: 10**20}, r"dataset_config\.n\.a{80}: integer 1000"),
    ],
    ids=short,
)
def test_a_value_that_no_key_is_made_of(value: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        Spec.of("photos", "1.0.0", {"n": value})
    assert len(str(caught.value)) < 300


def test_a_document_that_is_a_number_of_many_digits() -> None:
    with pytest.raises(SpecError, match="got int of 16610 bits"):
        spec.from_members(10**5000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": ' + MANY_DIGITS + "}", "4300"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        (DEEP, "nested deeper than 64"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ("\ufeff{}", "BOM"),
        ("{}".encode("utf-16"), "not UTF-8"),
        ("\ud800", "lone surrogate"),
        (
            '{"dataset_name": "a", "handler_version": "1", "dataset_config": {"a": 1e999}}',
            "inf is not a JSON number",
        ),
    ],
    ids=short,
)
def test_text_that_is_no_config(text: str | bytes, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        canonical.parse(text)


def test_a_long_name_with_many_values_costs_no_minutes() -> None:
    options = {"a" * 400_000: [0] * 250_000}
    started = time.process_time()
    assert Spec.of("photos", "1.0.0", options).key
    assert time.process_time() - started < 10


@pytest.mark.parametrize("number", [2**53, 10**400], ids=short)
def test_an_integer_in_a_markers_spec_that_has_no_canonical_form(number: int) -> None:
    live = described({"a.txt": b"a"}, spec=SPEC)
    body = manifests.encode(live).replace(b'"size": 4', f'"size": {number}'.encode())
    with pytest.raises(IntegrityError, match=r"m: its spec is invalid: .*2\^53"):
        manifests.decode(body, Live, where="m")


def test_a_number_that_nothing_can_calculate_with() -> None:
    request = Request(spec=SPEC, nonce="n", client="c", requested_at=1.0)
    live = described({"a.txt": b"a"}, spec=SPEC)
    huge = f'"zip_size": {10**400}'.encode()
    body = manifests.encode(live).replace(f'"zip_size": {live.zip_size}'.encode(), huge)
    with pytest.raises(IntegrityError, match="zip_size"):
        manifests.decode(body, Live, where="m")
    assert manifests.decode(manifests.encode(request), Request, where="m") == request


PROGRESS = manifests.encode(
    Progress(phase="building", done=1, total=2, bytes=3, remaining_s=4.0, expires_at=5.0)
).decode()


def event(stored: Any, record: Any = None) -> bytes:
    return json.dumps({"Records": [record or {"s3": {"object": stored}}]}).encode()


@pytest.mark.parametrize(
    "line",
    [
        event({"key": "k", "userMetadata": {"X-Amz-Meta-Progress": 3}}),
        event({"key": "k", "userMetadata": 0.5}),
        event({"key": ["k"]}),
        event(1),
        event(None, record="text"),
        b'{"Records": true}',
        DEEP.encode(),
        b'{"Records": [' + DEEP.encode(),
        b'{"Records": [{"s3": {"object": {"key": "\\ud800"}}}]}',
    ],
    ids=short,
)
def test_an_event_that_is_none(line: bytes) -> None:
    assert list(notifications.parse_line(line)) == []


def test_an_event_with_progress() -> None:
    (created,) = notifications.parse_line(
        event({"key": "k", "userMetadata": {"X-Amz-Meta-Progress": PROGRESS, "content-type": "x"}})
    )
    assert created.metadata == {"progress": PROGRESS}
    assert wait.progress_of(created.metadata) == Progress(
        phase="building", done=1, total=2, bytes=3, remaining_s=4.0, expires_at=5.0
    )


def test_progress_that_is_no_text() -> None:
    assert wait.progress_of({"progress": "\ud800"}) is None


def test_a_stream_without_line_ends_is_given_up() -> None:
    with pytest.raises(OSError, match="more than 1048576 bytes"):
        list(notifications._split_lines(iter([b"x" * (1 << 16)] * 100)))


def test_a_log_that_begins_at_a_number_of_many_digits() -> None:
    body = f"[build a, log from byte {MANY_DIGITS}]\nwords\n".encode()
    assert buildlog.text_of(body).endswith("words\n")


@pytest.mark.parametrize("nonce", ["\ud800", "../x", "a" * 65, ""], ids=short)
def test_a_topic_with_a_nonce_that_is_none(nonce: str) -> None:
    with pytest.raises(UsageError, match="is not a topic"):
        wait.split_topic(f"{SPEC.key}.{nonce}")


LISTING = (
    "<ListBucketResult><Contents><Key>a</Key><LastModified>{modified}</LastModified>"
    "<ETag>e</ETag><Size>{size}</Size></Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    "body",
    [
        LISTING.format(modified="2026-99-99", size=1),
        LISTING.format(modified="", size=1),
        LISTING.format(modified="2026-01-01T00:00:00Z", size=MANY_DIGITS),
        LISTING.format(modified="2026-01-01T00:00:00Z", size="x"),
        '<?xml version="1.0" encoding="nonsense"?><a/>',
        '<?xml version="1.0" encoding="utf-32"?><a/>',
        '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&e;">]><a>&d;</a>',
        "",
    ],
    ids=short,
)
def test_a_listing_that_is_none(body: str) -> None:
    with pytest.raises(StoreError, match="listing of 'p': the response is not an S3 listing"):
        listing.parse_page(body.encode(), "p")


@pytest.mark.parametrize(
    "date", ["", "soon", "Thu, 26 Nov 2026 99:00:00 GMT", "Thu, 1 Jan 1", "1"], ids=short
)
def test_a_date_that_is_none(date: str) -> None:
    assert Response(200, {"date": date}, b"").sent_at is None


def test_the_date_of_a_response() -> None:
    assert Response(200, {"date": "Thu, 01 Jan 1970 00:01:00 GMT"}, b"").sent_at == 60.0
    assert Response(200, {}, b"").sent_at is None


@pytest.mark.parametrize("length", [None, "", "x", "-1", MANY_DIGITS, "٣"], ids=short)
def test_a_response_without_etag_and_size(length: str | None) -> None:
    headers = {} if length is None else {"content-length": length}
    with pytest.raises(StoreError, match="no ETag"):
        _ = Response(200, headers, b"").etag
    with pytest.raises(StoreError, match="Content-Length"):
        _ = Response(200, headers, b"").size


def test_an_error_of_many_digits() -> None:
    body = f"<Error><Code>A</Code><Message>&#{MANY_DIGITS};</Message></Error>".encode()
    assert s3errors.parse_error(body).code == "A"


@pytest.mark.parametrize(
    "header", ["", f"bytes 0-{MANY_DIGITS}/*", "bytes ٠-1/2", "bytes 0-1", "items 0-1/2"], ids=short
)
def test_a_content_range_that_is_none(header: str) -> None:
    assert parse_content_range(header) is None


def test_a_content_range() -> None:
    assert parse_content_range("bytes 0-9/100") == (0, 10, 100)
    assert parse_content_range("bytes 5-9/*") == (5, 10, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cache_limit = " + MANY_DIGITS, "not TOML: .*4300"),
        ("home = " + "[" * 5000, "nested too deeply"),
        ("a = 1\n" * 20_000, "larger than the 64 KiB"),
        ("a." * 20_000 + "a = 1", "a line of more than 8 KiB"),
        (b"\xff", "cannot be read: .*utf-8"),
        ("profiles = 1", "profiles: expected tables"),
        ("[profiles]\nlab = 1", "profiles: expected tables"),
        ("profile = [1]", "profile: expected the name"),
        ('home = "a\\u0000b"', "home: not a path"),
        ('home = "~nobody-there/x"', "write the whole path"),
        ('shared_homes = ["/a", "~nobody-there"]', "write the whole path"),
        ('cache_limit = "' + MANY_DIGITS + '"', "more than any disk holds"),
        ('bucket = "a b"', "bucket: expected letters, digits"),
        ('region = "é"', "region: expected letters, digits"),
        ('client_name = "a\\u001b[2J"', "client_name: expected printable text"),
        ('secret_key = "a\\nb"', "secret_key: holds characters"),
        ("home." + "a." * 900 + "a = 1", "home: expected a string"),
    ],
    ids=short,
)
def test_settings_that_cannot_be_used(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(tmp_path, text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DSCACHE_ENDPOINT", "http://a\0b"),
        ("DSCACHE_ACCESS_KEY", "\udcff"),
        ("DSCACHE_CLIENT_NAME", "a\0b"),
        ("DSCACHE_HOME", "a\0b"),
        ("DSCACHE_HOME", "\ud800"),
        ("DSCACHE_CONFIG", "~nobody-there/x"),
        ("DSCACHE_CONFIG", "a\0b"),
        ("DSCACHE_CONFIG", "~a\0b/x"),
        ("HOME", "~nobody-there"),
    ],
    ids=short,
)
def test_variables_that_cannot_be_used(variable: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        config.load(environ={"HOME": str(tmp_path), variable: value}, cwd=tmp_path)


def test_a_home_that_is_not_utf8_is_used(tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff")
    assert load(tmp_path, DSCACHE_HOME=name).home == Path(name)


@pytest.mark.parametrize("setting", ["endpoint", "public_endpoint"], ids=short)
def test_an_endpoint_with_a_port_that_is_none(setting: str) -> None:
    changed: dict[str, Any] = {setting: "http://a:b"}
    config = Config(endpoint="http://a")._replace(**changed)
    with pytest.raises(ConfigError, match=f"{setting}: 'http://a:b'"):
        SignedHttp(config)


@pytest.mark.parametrize("text", ["1" * 400, "9e9", "٣ GB", "999999 PB"], ids=short)
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_bytes(text)


@pytest.mark.parametrize(
    "splits",
    [
        '{"a": {"shards": Infinity, "held": []}}',
        '{"a": {"shards": 1, "held": [NaN]}}',
        '{"a": {"shards": "1", "held": []}}',
        '{"a": {"shards": -1, "held": []}}',
        '{"a": {"shards": true, "held": []}}',
        '{"a": {"shards": ' + MANY_DIGITS + ', "held": []}}',
        DEEP,
    ],
    ids=short,
)
def test_a_partial_file_that_is_damaged(splits: str, tmp_path: Path) -> None:
    written(tmp_path / contents.PARTIAL, f'{{"schema": 1, "splits": {splits}}}')
    with pytest.raises(IntegrityError, match=r"damaged .*repair"):
        contents.read_contents(tmp_path)


@pytest.mark.parametrize("members", ['[{"name": [], "size": 1}]', "[1]", DEEP, "null"], ids=short)
def test_a_manifest_file_that_is_damaged(members: str, tmp_path: Path) -> None:
    written(tmp_path / contents.MANIFEST, f'{{"members": {members}}}')
    with pytest.raises(IntegrityError, match=r"damaged .*repair"):
        list(contents.wrong_files(tmp_path, None))


@pytest.mark.parametrize("name", ["a\\u0000b", "\\ud800", "/" * 5000], ids=short)
def test_a_member_that_no_file_can_be(name: str, tmp_path: Path) -> None:
    written(tmp_path / contents.MANIFEST, f'{{"members": [{{"name": "{name}", "size": 1}}]}}')
    assert len(list(contents.wrong_files(tmp_path, None))) == 1


@pytest.mark.parametrize(
    "text", [b"\xff", DEEP.encode(), b'{"featuresDict": {"features": [1]}}'], ids=short
)
def test_a_features_file_that_is_damaged(text: bytes, tmp_path: Path) -> None:
    written(tmp_path / contents.MANIFEST, manifests.encode(described({}, members=[MEMBER])))
    written(tmp_path / "features.json", text)
    with pytest.raises(FeatureError, match=r"features\.json"):
        _ = Dataset(tmp_path, lock=None).features


def test_a_verified_document_that_is_nested_deeply() -> None:
    live = described({}, members=[MEMBER])
    (problem,) = document_problems(live, {"features.json": DEEP.encode()})
    assert "is not JSON" in str(problem)


@pytest.mark.parametrize(
    "content", [b'{"profile": "\xff"}', b'{"api_port": 70000}', DEEP.encode()], ids=short
)
def test_a_stack_that_is_damaged(content: bytes, tmp_path: Path) -> None:
    written(tmp_path / record.STACK_FILE, content.replace(b"[[", b'{"server":[[', 1))
    with pytest.raises(StackError, match="move the file away"):
        record.read_record(tmp_path)
    written(tmp_path / record.CREDENTIALS_FILE, b'{"root": "\xff"}')
    with pytest.raises(StackError, match="restore the file"):
        record.credentials(tmp_path)


READERS: list[Callable[[Path], object]] = [
    lambda path: profile.read(path, "lab"),
    lambda path: builderfile.datasets(path),
]


@pytest.mark.parametrize("read", READERS, ids=["profile", "builder"])
@pytest.mark.parametrize(
    "text",
    ["a = " + MANY_DIGITS, "a = " + "[" * 5000, "profiles = 1\ndatasets = 1", b"\xff"],
    ids=short,
)
def test_files_of_the_stack_that_are_damaged(
    read: Callable[[Path], object], text: str | bytes, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"a\.toml: "):
        read(written(tmp_path / "a.toml", text))


@pytest.mark.parametrize("folder", ["~nobody-there", "a\0b", "x" * 300, "/x" * 500_000], ids=short)
def test_raw_data_in_a_folder_that_cannot_be(folder: str) -> None:
    with pytest.raises(UsageError, match="--raw photos=") as caught:
        builderfile.parse_raw((f"photos={folder}",))
    assert len(str(caught.value)) < 1000


def test_halves_of_pairs_are_spelled_out() -> None:
    assert printable("a\udcffb\ud800") == "a\\udcffb\\ud800"
    assert printable("😀é") == "😀é"


def run(arguments: list[str | bytes], **variables: str | bytes) -> subprocess.CompletedProcess[str]:
    environ = {os.fsencode(name): os.fsencode(value) for name, value in unmeasured().items()}
    environ |= {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
    command = [sys.executable, "-c", "from dscache.cli import main; main()", *arguments]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, errors="surrogateescape", check=False
    )


@pytest.mark.parametrize(
    ("content", "variables", "code"),
    [
        ('{"a": ' + MANY_DIGITS + "}", {}, 2),
        (DEEP, {}, 2),
        ("\ufeff{}", {}, 2),
        (b"\xff\xfe{\x00}\x00", {}, 2),
        ('{"a": "\\ud800"}', {}, 2),
        ("", {"DSCACHE_CLIENT_NAME": b"\xff"}, 2),
        ("", {"DSCACHE_ENDPOINT": b"http://\xff"}, 2),
        ("", {"DSCACHE_CACHE_LIMIT": MANY_DIGITS}, 2),
        ("", {"DSCACHE_HOME": "~nobody-there/x"}, 2),
    ],
    ids=short,
)
def test_the_command_line_says_it_in_one_line(
    content: str | bytes, variables: dict[str, str | bytes], code: int, tmp_path: Path
) -> None:
    path = written(tmp_path / "cfg.json", content or json.dumps(SPEC.members))
    ran = run(["get", str(path), "--no-build"], HOME=str(tmp_path), **variables)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert ran.stderr.startswith("dscache: ")
    assert ran.stderr.count("\n") == 1


def test_the_path_of_a_dataset_is_printed_whatever_its_bytes(tmp_path: Path) -> None:
    home = os.fsdecode(bytes(tmp_path) + b"/\xff")
    live = described({"a.txt": b"a"}, spec=SPEC)
    folder = Path(home) / "datasets" / SPEC.key
    written(folder / contents.MANIFEST, manifests.encode(live))
    written(folder / "a.txt", b"a")
    path = written(tmp_path / "cfg.json", json.dumps(SPEC.members))
    for arguments in (["get", str(path)], ["get", str(path), "-q"]):
        ran = run(
            [*arguments], HOME=str(tmp_path), DSCACHE_HOME=home, PYTHONIOENCODING="utf-8:strict"
        )
        assert (ran.returncode, ran.stdout.rstrip("\n")) == (0, str(folder)), ran.stderr
