"""A dscache.toml that somebody else wrote does not receive the user's credentials."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dscache import config
from dscache.errors import AccessDenied, ConfigError
from dscache.store.s3 import Store
from dscache.trust import revoke, trust
from support.running import clean_environ, write_spec

EVIL = 'endpoint = "http://evil.example.org"\n'
MINE = """
profile = "lab"
[profiles.lab]
endpoint = "https://store.example.org"
access_key = "me"
secret_key = "s3cr3t"
"""


class Place:
    """A user's home, and a cloned repository with a dscache.toml."""

    def __init__(self, folder: Path) -> None:
        self.home, self.work = folder / "home", folder / "work" / "deep"
        self.user_folder = self.home / ".config" / "dscache"
        self.project = folder / "work" / "dscache.toml"
        self.user_folder.mkdir(parents=True)
        self.work.mkdir(parents=True)
        (self.user_folder / "config.toml").write_text(MINE)

    def load(self, **environ: str) -> config.Config:
        return config.load(environ={"HOME": str(self.home), **environ}, cwd=self.work)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        'public_endpoint = "http://evil.example.org"\n',
        f"[profiles.lab]\n{EVIL}",
        f'profile = "x"\n[profiles.x]\n{EVIL}',
        f'{EVIL}access_key = "theirs"\n',
        f'{EVIL}secret_key = "theirs"\n',
    ],
)
@pytest.mark.parametrize("environ", [{}, {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}])
def test_an_endpoint_of_a_project_gets_no_credentials_of_the_user(
    text: str, environ: dict[str, str], place: Place
) -> None:
    place.project.write_text(text)
    with pytest.raises(ConfigError, match=r"credentials come from .*dscache trust") as refused:
        place.load(**environ)
    assert "s3cr3t" not in str(refused.value)
    assert str(place.project) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (f'{EVIL}access_key = "a"\nsecret_key = "b"\n', {}),
        (EVIL, {"DSCACHE_ACCESS_KEY": "a", "DSCACHE_SECRET_KEY": "b"}),
        (EVIL, {"DSCACHE_ENDPOINT": "https://store.example.org"}),
        ('bucket = "theirs"\ncache_limit = "1 GB"\nprofile = "lab"\n', {}),
    ],
)
def test_what_a_project_may_say(text: str, environ: dict[str, str], place: Place) -> None:
    place.project.write_text(text)
    assert place.load(**environ).endpoint


def test_trust_is_for_one_content_of_one_file(place: Place) -> None:
    place.project.write_text(EVIL)
    trust(place.project, place.user_folder)
    assert place.load().endpoint == "http://evil.example.org"
    assert (place.user_folder / "trusted.json").stat().st_mode & 0o777 == 0o600
    place.project.write_text(EVIL + 'bucket = "x"\n')
    with pytest.raises(ConfigError, match="dscache trust"):
        place.load()
    trust(place.project, place.user_folder)
    assert revoke(place.project, place.user_folder)
    assert not revoke(place.project, place.user_folder)
    with pytest.raises(ConfigError, match="dscache trust"):
        place.load()


def test_a_file_of_another_user_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.project.write_text('bucket = "theirs"\n')
    if os.getuid() == 0:
        os.chown(place.project, 4711, 4711)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(ConfigError, match="belongs to another user"):
        place.load()
    trust(place.project, place.user_folder)
    assert place.load().bucket == "theirs"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_list_trusts_nothing(content: bytes, place: Place) -> None:
    place.project.write_text(EVIL)
    (place.user_folder / "trusted.json").write_bytes(content)
    with pytest.raises(ConfigError, match="delete it"):
        place.load()


@pytest.mark.parametrize("secret", [12345678, 1.5, ["s3cr3t"], {"a": "s3cr3t"}, True])
def test_a_secret_of_another_type_is_not_printed(secret: Any, place: Place) -> None:
    import tomli_w

    document = {"secret_key": secret}
    (place.user_folder / "config.toml").write_text(tomli_w.dumps(document))
    with pytest.raises(ConfigError, match="secret_key: expected a string, got ") as refused:
        place.load()
    assert str(secret) not in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


OWN_KEYS = 'access_key = "theirs"\nsecret_key = "theirs"\n'
NO_KEYS = 'access_key = ""\nsecret_key = ""\n'


@pytest.mark.parametrize(
    ("user", "text", "environ", "named"),
    [
        ("", EVIL + NO_KEYS, {}, "this machine"),
        ("", EVIL + NO_KEYS, {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}, "machine"),
        (MINE, EVIL + NO_KEYS, {}, "this machine"),
        ('session_token = "s3cr3t"\n', EVIL + OWN_KEYS, {}, "session_token"),
        ("", EVIL + OWN_KEYS, {"AWS_SESSION_TOKEN": "s3cr3t"}, r"\$AWS_SESSION_TOKEN"),
    ],
)
def test_no_other_credentials_take_the_place_of_those(
    user: str, text: str, environ: dict[str, str], named: str, place: Place
) -> None:
    (place.user_folder / "config.toml").write_text(user)
    place.project.write_text(text)
    with pytest.raises(ConfigError, match=rf"credentials come from .*{named}.*dscache trust") as no:
        place.load(**environ)
    assert "s3cr3t" not in str(no.value)


def test_the_users_own_file_beside_a_project_is_not_the_project_s(place: Place) -> None:
    mine = Path(f"{place.project}.mine")
    mine.write_text('access_key = "me"\nsecret_key = "s3cr3t"\n')
    place.project.write_text(EVIL)
    with pytest.raises(ConfigError, match=r"dscache\.toml\.mine .*dscache trust"):
        place.load(DSCACHE_CONFIG=str(mine))


def test_no_store_looks_for_credentials_that_it_may_not_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    store = Store(config.Config(endpoint="http://127.0.0.1:1", aws_sdk=False))
    for send in (
        lambda: store.get("x"),
        lambda: store.presign_get("x"),
        lambda: store.create_upload("x", {}),
    ):
        with pytest.raises(AccessDenied, match="no credentials"):
            send()


@contextmanager
def listener() -> Iterator[tuple[str, list[str]]]:
    """An endpoint of somebody else's, and the names and values of all headers that it receives."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(str(self.headers))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("text", "sent"),
    [(NO_KEYS, False), ('access_key = ""\n', False), ("", False), (OWN_KEYS, True)],
)
def test_what_an_endpoint_really_receives(text: str, sent: bool, place: Place) -> None:
    (place.user_folder / "config.toml").write_text("")
    (place.home / ".aws").mkdir()
    (place.home / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = VICTIM\naws_secret_access_key = VICTIM-SECRET\n"
    )
    write_spec(place.work / "cfg.json", "photos")
    with listener() as (endpoint, received):
        place.project.write_text(f'endpoint = "{endpoint}"\n{text}')
        done = subprocess.run(
            [sys.executable, "-c", "from dscache.cli import main; main()", "get", "--no-build",
             "cfg.json"],
            cwd=place.work, capture_output=True, text=True, check=False,
            env={**clean_environ(), "HOME": str(place.home), "AWS_EC2_METADATA_DISABLED": "true"},
        )  # fmt: skip
    assert bool(received) is sent
    assert "VICTIM" not in "".join(received) + done.stderr
    assert done.returncode == (5 if sent else 2), done.stderr
