"""Whether another store is configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from dscache.devstack.elsewhere import configured
from dscache.errors import UnknownProfile

OWN_ENDPOINT = "http://127.0.0.1:1"


@pytest.mark.parametrize("name", ["local", "profile 'local"])
def test_only_the_profile_of_the_stack_may_be_missing(tmp_path: Path, name: str) -> None:
    environ = {"DSCACHE_CONFIG": str(tmp_path / "config.toml"), "DSCACHE_PROFILE": name}
    assert configured(name, OWN_ENDPOINT, environ) is None
    with pytest.raises(UnknownProfile, match=r"DSCACHE_PROFILE"):
        configured("demo", OWN_ENDPOINT, environ)
