"""No text of others reaches a terminal with control characters in it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dscache.cli.progress import Display
from dscache.config import Config
from dscache.protocol import layout, manifests
from dscache.protocol.manifests import BadSample, Failure, Progress, Request
from dscache.spec import Spec
from dscache.store.s3 import Store
from dscache.terminal import printable, redacted
from support.datasets import described, random_files
from support.running import dscache

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x7f\u202eexe.\r"
SPEC = Spec.of("photos", "1.0.0", {f"size{EVIL}": EVIL})


def assert_harmless(text: str) -> None:
    assert text
    assert all(character in "\n\t" or character.isprintable() for character in text), ascii(text)


def put_failed(store: Store) -> None:
    failure = Failure(
        kind="handler", message=EVIL, nonce="n", failed_at=time.time(), sample=EVIL,
        traceback=f"Traceback\n{EVIL}", log_tail=EVIL, builder=EVIL,
    )  # fmt: skip
    store.put(layout.failed(SPEC.key, "n"), manifests.encode(failure))


def put_requested(store: Store) -> None:
    request = Request(spec=SPEC, nonce="n", client=EVIL, requested_at=time.time())
    store.put(layout.request(SPEC.key, "n"), manifests.encode(request))
    progress = Progress(
        phase=EVIL, done=1, total=2, bytes=3, remaining_s=4, expires_at=time.time() + 60
    )
    store.put(layout.progress(SPEC.key), manifests.encode(progress))


def put_ready(store: Store) -> None:
    live = described(
        random_files([100]),
        spec=SPEC,
        zip_key=layout.archive(SPEC.key, 0),
        bad_samples=[BadSample(sample=EVIL, error=EVIL)],
        builder=EVIL,
    )
    store.put(live.zip_key, b"zip")
    store.put(layout.ready(SPEC.key), manifests.encode(live))


@pytest.mark.store
@pytest.mark.parametrize("put", [put_failed, put_requested, put_ready])
def test_what_is_in_the_bucket_is_printed_without_control_characters(
    put: object, store: Store, client_config: Config
) -> None:
    assert callable(put)
    put(store)
    store.put(layout.log(SPEC.key), b"[build ab12, log from byte 0]\n" + EVIL.encode())
    said = []
    for command in ("status", "show", "logs", "verify"):
        ran = dscache(client_config, command, SPEC.key)
        said.append(ran.out + ran.err)
    said += [dscache(client_config, "get", SPEC.key, "--timeout", "1", "-v").err]
    said += [dscache(client_config, "ls").out + dscache(client_config, "ls").err]
    for text in said:
        assert_harmless(text)
    assert "\\x1b" in "".join(said)


@pytest.mark.parametrize("bars", [True, False])
def test_a_builder_s_progress_is_shown_without_control_characters(bars: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return bars

    terminal = Terminal()
    display = Display(stream=terminal)
    display.progress(Progress(phase=EVIL, done=1, total=2, bytes=3, remaining_s=4, expires_at=0.0))
    display.note(EVIL)
    display.close()
    shown = terminal.getvalue()
    assert "owned" in shown
    assert "\x1b]" not in shown and "\x1b[2J" not in shown and "\x9b" not in shown


def test_text_and_its_lines_stay_as_they_are() -> None:
    text = "größe\t1\n写真 🐈"
    assert printable(text) == text
    assert printable("\x1b[0m\r\x9f\u202e") == "\\x1b[0m\\r\\x9f\\u202e"


@pytest.mark.parametrize(
    "text",
    [
        "Invalid header value b'AWS4-HMAC-SHA256 Credential=k/20260101, Signature=s3cr3t'",
        "AWS4-HMAC-SHA256 Credential=k/x, SignedHeaders=host, Signature=s3cr3t",
        "Invalid header value b's3cr3t\\n'",
        "{'authorization': 'AWS4 s3cr3t', 'x-amz-security-token': 's3cr3t'}",
        "Authorization: Basic s3cr3t",
        "X-Amz-Security-Token: s3cr3t",
        "http://h/b?X-Amz-Signature=s3cr3t&X-Amz-Security-Token=s3cr3t",
        "http://user:s3cr3t@h/", "http://user:s3cr3t/@h", "https://s3cr3t@h: refused",
    ],
)  # fmt: skip
def test_what_is_secret_is_hidden(text: str) -> None:
    hidden = redacted(f"before\n{text}\nbehind")
    assert "s3cr3t" not in hidden
    assert hidden.startswith("before\n") and hidden.endswith("\nbehind")


@pytest.mark.parametrize(
    "text",
    [
        "http://h:9000/bucket/key?prefix=x",
        "mail a@b.org, Signature of x",
        "session_token: expected a string, got int",
        "GET datasets/k.ready: 404 in 3 ms",
    ],
)
def test_what_is_not_secret_stays(text: str) -> None:
    assert redacted(text) == text


# -- logs: every handler that may print a record gets it printable

DAMAGED = f'{{"schema":1,"state":"live","spec":{{{json.dumps(EVIL)}:1}}}}'.encode()
ELSEWHERE = manifests.encode(
    Request(spec=SPEC, nonce=EVIL, client=EVIL, requested_at=1.0)
)  # the nonce is not that of its name


@pytest.mark.store
@pytest.mark.parametrize("body", [DAMAGED, ELSEWHERE])
@pytest.mark.parametrize("more", [(), ("-v",), ("--json",), ("--json", "-v")])
@pytest.mark.parametrize(
    "command",
    [
        ("ls",),
        ("status", SPEC.key),
        ("show", SPEC.key),
        ("logs", SPEC.key),
        ("verify", SPEC.key),
        ("url", SPEC.key),
        ("preview", SPEC.key),
        ("get", SPEC.key, "--timeout", "1"),
        ("wait", f"{SPEC.key}.n", "--timeout", "1"),
        ("cancel", f"{SPEC.key}.n"),
    ],
    ids=lambda command: command[0],
)
def test_damaged_objects_bring_no_command_to_print_them(
    command: tuple[str, ...],
    more: tuple[str, ...],
    body: bytes,
    store: Store,
    client_config: Config,
) -> None:
    put_everywhere(store, body)
    ran = dscache(client_config, *command, *more)
    assert_harmless(ran.out + ran.err + ".")
    assert "Traceback" not in ran.err


def put_everywhere(store: Store, body: bytes) -> None:
    for name in (
        layout.ready(SPEC.key), layout.failed(SPEC.key, "n"), layout.progress(SPEC.key),
        layout.request(SPEC.key, "n"), layout.cancel(SPEC.key, "n"), layout.claim(SPEC.key),
        layout.lock("photos", "1.0.0"), layout.raw("photos"), layout.log(SPEC.key),
    ):  # fmt: skip
        store.put(name, body)


@pytest.mark.parametrize("name", ["dscache.protocol.wait", "dscache_builder"])
@pytest.mark.parametrize("setup", ["", "logging.basicConfig(level=logging.DEBUG)"])
def test_a_program_s_own_handlers_get_printable_records(name: str, setup: str) -> None:
    """Also the one of the last resort, which prints the warnings of libraries."""
    program = (
        f"import logging\n{setup}\n"
        f"import dscache.protocol.wait, dscache_builder.daemon\n"
        f"log = logging.getLogger({name!r})\nevil = {EVIL!r}\n"
        "log.warning('saw %s', evil)\n"
        "try:\n    raise ValueError(evil)\nexcept ValueError:\n    log.exception('failed %s', evil)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "saw \\x1b]0;owned" in ran.stderr and "ValueError: \\x1b]0;owned" in ran.stderr
    assert_harmless(ran.stderr)


def test_every_logger_of_dscache_is_one_of_those() -> None:
    root = Path(__file__).parents[2]
    for folder in (root / "dscache", root / "builder" / "dscache_builder"):
        for path in folder.rglob("*.py"):
            made = re.findall(r"^\w+ = .*getLogger.*$", path.read_text(), re.MULTILINE)
            assert not made, f"{path}: {made}; use dscache.terminal.logger"
