"""What the builder says of its own configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dscache.errors import ConfigError
from dscache_builder import config

TOML = """
state = "state"
[store]
secret_key = "s3cr3t"
[datasets.photos]
handler = "photos"
raw = "raw"
source = "dataset-handlers=={version}"
"""


@pytest.mark.parametrize(
    ("mode", "secret", "exposed"),
    [
        (0o600, True, False),
        (0o640, True, False),
        (0o644, True, True),
        (0o604, True, True),
        (0o644, False, False),
    ],
)
def test_a_secret_that_every_user_can_read(
    mode: int, secret: bool, exposed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "builder.toml"
    path.write_text(TOML if secret else TOML.replace("secret_key", "access_key"))
    path.chmod(mode)
    assert config.is_secret_exposed(path, config.load(path)) is exposed


def load(tmp_path: Path, text: str) -> config.BuilderConfig:
    path = tmp_path / "builder.toml"
    path.write_text(text)
    return config.load(path)


def test_the_store_of_the_file_and_of_variables(tmp_path: Path) -> None:
    environ = {
        "DSCACHE_ENDPOINT": "http://e:1",
        "AWS_ACCESS_KEY_ID": "aws",
        "AWS_SECRET_ACCESS_KEY": "other",
        "DSCACHE_SESSION_TOKEN": "token",
    }
    store = load(tmp_path, TOML).store_config(environ)
    assert (store.endpoint, store.access_key, store.secret_key) == ("http://e:1", "aws", "s3cr3t")
    assert store.session_token == "token"
    assert store.origin["secret_key"] == "[store] of builder.toml"
    assert store.origin["access_key"] == "$AWS_ACCESS_KEY_ID"
    ours = load(tmp_path, TOML).store_config({**environ, "DSCACHE_ACCESS_KEY": "ours"})
    assert ours.access_key == "ours"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("access_key", "key\\n"),
        ("access_key", "ключ"),
        ("session_token", "s3cr3t\\n"),
        ("region", "us\\n"),
        ("bucket", "a b"),
        ("endpoint", "http://user:s3cr3t@h"),
        ("endpoint", "http://[::1"),
        ("endpoint", "h:9000"),
    ],
)
def test_a_store_that_cannot_be_used(setting: str, value: str, tmp_path: Path) -> None:
    text = TOML.replace("[store]\n", f'[store]\n{setting} = "{value}"\n')
    with pytest.raises(ConfigError, match=rf"\[store\] of builder\.toml: {setting}: ") as refused:
        load(tmp_path, text).store_config({})
    assert "s3cr3t" not in str(refused.value)


def test_a_variable_that_cannot_be_used(tmp_path: Path) -> None:
    for variable in ("DSCACHE_SESSION_TOKEN", "AWS_SESSION_TOKEN"):
        with pytest.raises(ConfigError, match=rf"\${variable}: session_token: .*line break"):
            load(tmp_path, TOML).store_config({variable: "token\n"})


@pytest.mark.parametrize(
    ("line", "of_dataset"),
    [
        ("workers = -1", False),
        ("reconcile_s = nan", False),
        ("environments_keep_days = inf", False),
        ("scratch_bytes = 1", False),
        ("max_bad_samples = nan", True),
        ("max_bad_samples = 1.5", True),
        ("sample_seconds = nan", True),
        ("sample_seconds = -1.0", True),
        ("memory_bytes = 0", True),
        ('raw = "~nosuchuser/raw"', True),
        ('raw = "a\\u0000b"', True),
        ('state = "~nosuchuser/state"', False),
    ],
)
def test_values_out_of_range(line: str, of_dataset: bool, tmp_path: Path) -> None:
    setting = line.partition(" ")[0]
    kept = "".join(f"{kept}\n" for kept in TOML.splitlines() if not kept.startswith(setting))
    text = f"{kept}{line}\n" if of_dataset else f"{line}\n{kept}"
    with pytest.raises(ConfigError, match=r"builder\.toml: ") as refused:
        load(tmp_path, text)
    assert f"{setting}: " in str(refused.value)
