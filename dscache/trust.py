"""Project files that the user trusts with his credentials and datasets: `dscache trust`.

A `dscache.toml` comes with a repository, and anybody may have written it. The user's trust is in
one file beside the user's configuration, for the content that it had then.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from .errors import ConfigError
from .files import PRIVATE, write_file

TRUSTED_FILE = "trusted.json"


def is_trusted(path: Path, user_folder: Path) -> bool:
    """Whether the user trusts the file as it is now. Raises ConfigError."""
    return _trusted(user_folder).get(str(path.resolve())) == _digest(path)


def trust(path: Path, user_folder: Path) -> Path:
    """Trust the file as it is now, and return its path with links resolved. Raises ConfigError."""
    real = path.resolve()
    trusted = {**_trusted(user_folder), str(real): _digest(real)}
    _write(trusted, user_folder)
    return real


def revoke(path: Path, user_folder: Path) -> bool:
    """Trust the file no longer; whether it was trusted. Raises ConfigError."""
    trusted = _trusted(user_folder)
    if trusted.pop(str(path.resolve()), None) is None:
        return False
    _write(trusted, user_folder)
    return True


def _trusted(user_folder: Path) -> dict[str, str]:
    """SHA-256 by path."""
    path = user_folder / TRUSTED_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: could not be read: {error}; delete it") from None
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise ConfigError(f"{path}: damaged; delete it")
    return files


def _write(trusted: dict[str, str], user_folder: Path) -> None:
    content = json.dumps({"schema": 1, "files": trusted}, indent=1, sort_keys=True)
    write_file(user_folder / TRUSTED_FILE, content.encode(), mode=PRIVATE)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: could not be read: {error.strerror}") from None
