"""The profile that makes `dscache get` use the local store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import Config, read_settings, remove_profile, write_profile
from ..errors import UsageError

LOOPBACK = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")


def ensure(path: Path, name: str, client: Config) -> bool:
    """Write the profile to the user file; return whether that was necessary.

    Raises UsageError if a profile of that name is for a store on another machine.
    """
    settings = {
        "endpoint": client.endpoint,
        "bucket": client.bucket,
        "access_key": client.access_key,
        "secret_key": client.secret_key,
        "console": client.console,
    }
    existing = read(path, name)
    if existing == settings:
        return False
    if existing and not str(existing.get("endpoint", "")).startswith(LOOPBACK):
        raise UsageError(
            f"{path}: profile {name!r} is for {existing.get('endpoint')!r} and would be "
            "overwritten; choose another name with --profile"
        )
    write_profile(path, name, settings)
    return True


def remove(path: Path, name: str, endpoint: str) -> bool:
    """Remove the profile if it is for this endpoint; return whether it was."""
    if read(path, name).get("endpoint") != endpoint:
        return False
    remove_profile(path, name)
    return True


def read(path: Path, name: str) -> dict[str, Any]:
    """Return the profile's settings; {} if there is none. Raises ConfigError."""
    return dict(read_settings(path).get("profiles", {}).get(name, {}))
