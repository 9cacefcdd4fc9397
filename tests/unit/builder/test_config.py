"""What the builder says of its own configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

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
