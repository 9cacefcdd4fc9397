"""`-v`: requests, waits and decisions on standard error, and no secret among them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dscache.config import Config
from dscache.spec import Spec
from dscache.store.s3 import Store
from support.datasets import publish, random_files
from support.running import Ran, dscache

SPEC = Spec.of("photos", "1.0.0", {"side": 32})


def has_line(ran: Ran, pattern: str) -> bool:
    """Whether a log line ends with `pattern`, behind the time and the name of a module."""
    line = rf"^\d\d:\d\d:\d\d\.\d{{3}} dscache\.[a-z_.0-9]+: {pattern}$"
    return re.search(line, ran.err, re.MULTILINE) is not None


def assert_no_secrets(ran: Ran, config: Config) -> None:
    for secret in (config.secret_key, "Signature", "X-Amz-", "authorization"):
        assert secret.lower() not in ran.err.lower()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(SPEC.members))
    return path


def test_requests_and_a_wait_are_logged(client_config: Config, config_file: Path) -> None:
    ran = dscache(client_config, "get", "-v", "--timeout", "3", str(config_file))
    assert ran.code == 4
    key = re.escape(SPEC.key)
    assert has_line(ran, rf"GET datasets/{key}\.ready: 404 in \d+ ms")
    assert has_line(ran, rf"GET \?prefix=requests/{key}\.: 200 in \d+ ms")
    assert has_line(ran, rf"PUT requests/{key}\.[0-9a-f]+\.json: 200 in \d+ ms")
    assert has_line(ran, rf"requested {key}\.[0-9a-f]+ with priority 5")
    assert has_line(ran, r"listen datasets/photos_1\.0\.0_: 200 in \d+ ms")
    assert has_line(ran, rf"{key}: subscribed to notifications")
    assert has_line(ran, rf"{key}: no answer yet; checking again in [\d.]+ s, or on a notification")
    assert_no_secrets(ran, client_config)


def test_a_download_shows_no_signed_url(
    client_config: Config, store: Store, config_file: Path
) -> None:
    publish(store, random_files([1000]), config=SPEC.dataset_config)
    ran = dscache(client_config, "get", "-v", str(config_file))
    assert ran.code == 0
    assert has_line(ran, rf"{SPEC.key} is ready: datasets/{SPEC.key}\.zip")
    assert_no_secrets(ran, client_config)


def test_without_it_nothing_is_logged(client_config: Config) -> None:
    ran = dscache(client_config, "ls")
    assert (ran.code, ran.err) == (0, f"no datasets in bucket {client_config.bucket!r} yet\n")
