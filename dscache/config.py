"""Configuration: defaults < user file < project file < DSCACHE_* < flags.

User file: `~/.config/dscache/config.toml` (or `$DSCACHE_CONFIG`), with profiles:

    profile = "local"
    [profiles.local]
    endpoint = "http://127.0.0.1:9000"
    bucket = "dscache"
    access_key = "…"
    secret_key = "…"

Project file: `dscache.toml` in the working directory or a folder above it, in the same format.
Settings outside `[profiles]` apply to every profile. Nothing is read at import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import ConfigError, UnknownProfile, UsageError
from .files import PRIVATE, write_file

ENVIRONMENT = {
    "endpoint": ("DSCACHE_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "public_endpoint": ("DSCACHE_PUBLIC_ENDPOINT",),
    "bucket": ("DSCACHE_BUCKET",),
    "region": ("DSCACHE_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "access_key": ("DSCACHE_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    "secret_key": ("DSCACHE_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"),
    "session_token": ("DSCACHE_SESSION_TOKEN", "AWS_SESSION_TOKEN"),
    "home": ("DSCACHE_HOME",),
    "shared_homes": ("DSCACHE_SHARED_HOMES",),
    "cache_limit": ("DSCACHE_CACHE_LIMIT",),
    "client_name": ("DSCACHE_CLIENT_NAME",),
    "console": ("DSCACHE_CONSOLE",),
}

_SECRETS = ("access_key", "secret_key", "session_token")
_ENDPOINTS = ("endpoint", "public_endpoint")
_HOMES = ("home", "shared_homes")


class Config(NamedTuple):
    """Settings of a client or a builder. `repr` hides secrets; `_replace` returns a changed copy.

    Attributes:
        endpoint: URL of the store.
        bucket: name of the bucket.
        region: the region in signatures.
        access_key, secret_key, session_token: credentials; without an access key, botocore looks
            for credentials on this machine.
        public_endpoint: the endpoint in presigned URLs; `endpoint` if empty.
        home: directory of the local cache.
        shared_homes: caches of other users, searched first and never written to.
        cache_limit: maximum size of the local cache in bytes; None for no limit.
        client_name: name of this client, for people to read.
        console: URL of the store's web console.
        profile: name of the profile the settings came from.
        origin: source of each setting, for messages; not compared.
    """

    endpoint: str = ""
    bucket: str = "dscache"
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    public_endpoint: str = ""
    home: Path = Path()
    shared_homes: tuple[Path, ...] = ()
    cache_limit: int | None = None
    client_name: str = ""
    console: str = ""
    profile: str = ""
    origin: Mapping[str, str] = MappingProxyType({})

    def __repr__(self) -> str:
        hidden = (*_SECRETS, "origin")
        shown = [f"{name}={getattr(self, name)!r}" for name in self._fields if name not in hidden]
        return f"Config({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:  # a tuple defines its own
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])

    def require_endpoint(self) -> str:
        """Return the endpoint without a trailing slash. Raises ConfigError if it is missing."""
        if not self.endpoint:
            raise ConfigError(
                "no endpoint is configured; run `dscache up` for a local store, "
                "or set DSCACHE_ENDPOINT or `endpoint` in a profile (see the README)"
            )
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError(
                f"endpoint {self.endpoint!r} (from {self.origin.get('endpoint', 'the caller')}) "
                "is not a URL; expected http://host:port or https://host"
            )
        return self.endpoint.rstrip("/")


def load(
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Config:
    """Merge all sources into a Config. Raises ConfigError naming the source and the setting."""
    env = os.environ if environ is None else environ
    project = project_file(cwd or _cwd())
    files = [path for path in (user_file(env), project) if path]
    documents = [(str(path), _read(path)) for path in files]
    name, selected_by = _profile_name(profile, env, documents)
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, document in documents:
        profiles = document.get("profiles", {})
        plain = {k: v for k, v in document.items() if k not in ("profiles", "profile")}
        _merge(merged, origin, plain, source)
        _merge(merged, origin, profiles.get(name, {}), f"{source} [profiles.{name}]")
    if name and not any(name in document.get("profiles", {}) for _, document in documents):
        message = f"profile {name!r} ({selected_by}) is in none of: {_files(files)}"
        raise UnknownProfile(message, profile=name)
    for setting, variables in ENVIRONMENT.items():
        variable = next((variable for variable in variables if env.get(variable)), None)
        if variable and not (variable.startswith("AWS_") and setting in merged):
            _merge(merged, origin, {setting: env[variable]}, f"${variable}")
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    _merge(merged, origin, given, "the command line")
    if project is not None:
        _check_project(project, origin, user_file(env).parent)
    merged["home"] = Path(merged.get("home") or default_home(env)).expanduser()
    merged["shared_homes"] = _paths(merged.get("shared_homes", ""))
    merged["cache_limit"] = _size(merged.get("cache_limit", ""), origin.get("cache_limit", ""))
    return Config(profile=name, origin=origin, **merged)


def user_file(environ: Mapping[str, str]) -> Path:
    """Return `$DSCACHE_CONFIG`, or `dscache/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`."""
    if environ.get("DSCACHE_CONFIG"):
        return Path(environ["DSCACHE_CONFIG"]).expanduser()
    base = environ.get("XDG_CONFIG_HOME") or str(
        Path(environ.get("HOME", "~")).expanduser() / ".config"
    )
    return Path(base) / "dscache" / "config.toml"


def project_file(cwd: Path | None) -> Path | None:
    """Return the nearest `dscache.toml` at or above `cwd`, or None."""
    folders = () if cwd is None else (cwd, *cwd.parents)
    return next((d / "dscache.toml" for d in folders if _is_file(d / "dscache.toml")), None)


def default_home(environ: Mapping[str, str]) -> Path:
    """Return `$XDG_CACHE_HOME/dscache`, or `~/.cache/dscache`."""
    base = environ.get("XDG_CACHE_HOME") or str(
        Path(environ.get("HOME", "~")).expanduser() / ".cache"
    )
    return Path(base) / "dscache"


def write_profile(path: Path, name: str, settings: Mapping[str, str]) -> None:
    """Write profile `name` to the user file, atomically and with mode 0600.

    It becomes the default profile if there is none yet. Comments in the file are lost.
    """
    document = _read(path)
    document.setdefault("profile", name)
    document.setdefault("profiles", {})[name] = dict(settings)
    _write(path, document)


def remove_profile(path: Path, name: str) -> None:
    """Remove profile `name` from the user file; neither needs to exist."""
    if not path.is_file():
        return
    document = _read(path)
    document.get("profiles", {}).pop(name, None)
    if document.get("profile") == name:
        del document["profile"]
    _write(path, document)


def _profile_name(
    flag: str | None, env: Mapping[str, str], documents: list[tuple[str, dict[str, Any]]]
) -> tuple[str, str]:
    if flag:
        return flag, "from --profile"
    if env.get("DSCACHE_PROFILE"):
        return env["DSCACHE_PROFILE"], "from $DSCACHE_PROFILE"
    named = [
        (document["profile"], source) for source, document in documents if "profile" in document
    ]
    return (str(named[-1][0]), f"from {named[-1][1]}") if named else ("", "")


def _check_project(project: Path, origin: Mapping[str, str], user_folder: Path) -> None:
    """Raise ConfigError when a project file would have credentials sent to where it says, or
    datasets taken from where it says.

    It comes with a repository, and anybody may have written it. Its endpoint is used only with
    credentials that stand in the same file or in DSCACHE_* variables, or if the user trusts it. A
    cache that it names is used only if the user trusts it: its datasets are not checked at a hit.
    """
    endpoints = [name for name in _ENDPOINTS if origin.get(name, "").startswith(str(project))]
    owner = project.stat().st_uid
    foreign = owner not in (os.getuid(), 0)
    theirs = [name for name in _SECRETS[:2] if not _may_be_sent(origin.get(name, ""), project)]
    homes = [name for name in _HOMES if origin.get(name, "").startswith(str(project))]
    if not foreign and not homes and not (endpoints and theirs):
        return
    from .trust import is_trusted

    if is_trusted(project, user_folder):
        return
    if foreign:
        raise ConfigError(
            f"{project}: belongs to another user (id {owner}); if you want it to be used, run "
            f"`dscache trust {project}`"
        )
    if homes:
        raise ConfigError(
            f"{project}: names the {homes[0]}, and datasets that lie there would be handed out as "
            f"they are; if you trust them, run `dscache trust {project}`, or set {homes[0]} in a "
            f"configuration of your own (`$DSCACHE_{homes[0].upper()}` works too)"
        )
    sources = ", ".join(sorted({origin.get(name) or "this machine" for name in theirs}))
    raise ConfigError(
        f"{project}: names the {endpoints[0]}, but the credentials come from {sources}; if they "
        f"may be sent there, run `dscache trust {project}`, or put the endpoint into a profile of "
        "your own"
    )


def _may_be_sent(source: str, project: Path) -> bool:
    return source.startswith((str(project), "$DSCACHE_", "the command line"))


def _merge(
    merged: dict[str, Any], origin: dict[str, str], settings: Mapping[str, Any], source: str
) -> None:
    known = set(Config._fields) - {"profile", "origin"}
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(
                f"{source}: unknown setting {name!r}; known are {', '.join(sorted(known))}"
            )
        if name == "shared_homes" and _is_list_of_strings(value):
            value = os.pathsep.join(value)
        if name == "cache_limit" and type(value) is int:
            value = str(value)
        if not isinstance(value, (str, Path)):
            kind = 'a size like "200GB", or bytes' if name == "cache_limit" else "a string"
            got = type(value).__name__ if name in _SECRETS else repr(value)
            raise ConfigError(f"{source}: {name}: expected {kind}, got {got}")
        merged[name] = value
        origin[name] = source


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(path).expanduser() for path in str(text).split(os.pathsep) if path)


def _size(text: str, source: str) -> int | None:
    if not text:
        return None
    from .units import parse_bytes  # not at the top: a cache hit without a limit does not need it

    try:
        return parse_bytes(text)
    except UsageError as error:
        raise ConfigError(f"{source}: cache_limit: {error}") from None


def _cwd() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # the working directory was removed
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder without permission
        return False


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, {} if it does not exist. Raises ConfigError."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    import tomllib  # not at the top: a cache hit without a file does not need it

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _write(path: Path, document: Mapping[str, Any]) -> None:
    import tomli_w

    write_file(path, tomli_w.dumps(document).encode(), mode=PRIVATE)  # it holds secrets


def _files(paths: list[Path]) -> str:
    return ", ".join(str(path) for path in paths)
