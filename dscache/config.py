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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .credentials import CHAIN, SECRETS, Owner, Source, withheld
from .errors import ConfigError, UnknownProfile, UsageError
from .files import PRIVATE, write_file
from .settings import check_setting

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

MAX_FILE_BYTES = 64 << 10
MAX_LINE_BYTES = 8 << 10
_HOMES = ("home", "shared_homes")


class Config(NamedTuple):
    """Settings of a client or a builder. `repr` hides secrets; `_replace` returns a changed copy.

    Attributes:
        endpoint: URL of the store.
        bucket: name of the bucket.
        region: the region in signatures.
        access_key, secret_key, session_token: credentials.
        public_endpoint: the endpoint in presigned URLs; `endpoint` if empty.
        home: directory of the local cache.
        shared_homes: caches of other users, searched first and never written to.
        cache_limit: maximum size of the local cache in bytes; None for no limit.
        client_name: name of this client, for people to read.
        console: URL of the store's web console.
        profile: name of the profile the settings came from.
        aws_sdk: whether the AWS SDK may look for credentials on this machine if there is no access
            key. `load` decides that by who has chosen the endpoint.
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
    aws_sdk: bool = True
    origin: Mapping[str, str] = {}

    def __repr__(self) -> str:
        hidden = (*SECRETS, "origin")
        shown = [f"{name}={getattr(self, name)!r}" for name in self._fields if name not in hidden]
        return f"Config({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:  # a tuple defines its own
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])

    def require_endpoint(self) -> str:
        """Return the endpoint without a trailing slash. Raises ConfigError if there is none."""
        if not self.endpoint:
            raise ConfigError(
                "no endpoint is configured; run `dscache up` for a local store, "
                "or set DSCACHE_ENDPOINT or `endpoint` in a profile (see the README)"
            )
        check_setting("endpoint", self.endpoint, self.origin.get("endpoint", "the caller"))
        return self.endpoint.rstrip("/")

    def require_public_endpoint(self) -> str:
        """Return the endpoint of presigned URLs, without a trailing slash. Raises ConfigError."""
        if not self.public_endpoint:
            return self.require_endpoint()
        source = self.origin.get("public_endpoint", "the caller")
        check_setting("public_endpoint", self.public_endpoint, source)
        return self.public_endpoint.rstrip("/")


def load(
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Config:
    """Merge all sources into a Config. Raises ConfigError naming the source and the setting."""
    env = os.environ if environ is None else environ
    user, project = user_file(env), project_file(cwd or _cwd())
    owners = {Owner.USER: user, Owner.PROJECT: project}
    files = {owner: path for owner, path in owners.items() if path}
    documents = [(owner, str(path), read_settings(path)) for owner, path in files.items()]
    name, selected_by = _profile_name(profile, env, documents)
    merged: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for owner, file, document in documents:
        plain = {k: v for k, v in document.items() if k not in ("profiles", "profile")}
        _merge(merged, sources, plain, Source(owner, file))
        of_profile = document.get("profiles", {}).get(name, {})
        _merge(merged, sources, of_profile, Source(owner, f"{file} [profiles.{name}]"))
    if name and not any(name in document.get("profiles", {}) for _, _, document in documents):
        message = f"profile {name!r} ({selected_by}) is in none of: {_names(files.values())}"
        raise UnknownProfile(message, profile=name)
    _merge_variables(merged, sources, env)
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    _merge(merged, sources, given, Source(Owner.CALLER, "the command line"))
    if project is not None:
        _check_project(project, merged, sources, user.parent)
    origin = {setting: source.name for setting, source in sources.items()}
    home = merged.get("home") or default_home(env)
    merged["home"] = _expanded(home, f"{origin.get('home', '$HOME')}: home")
    merged["shared_homes"] = tuple(
        _expanded(path, f"{origin['shared_homes']}: shared_homes")
        for path in str(merged.get("shared_homes", "")).split(os.pathsep)
        if path
    )
    merged["cache_limit"] = _size(merged.get("cache_limit", ""), origin.get("cache_limit", ""))
    aws_sdk = not merged.get("access_key")  # _check_project has refused what it may not get
    return Config(profile=name, aws_sdk=aws_sdk, origin=origin, **merged)


def user_file(environ: Mapping[str, str]) -> Path:
    """Return `$DSCACHE_CONFIG`, or `dscache/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`."""
    if environ.get("DSCACHE_CONFIG"):
        return _expanded(environ["DSCACHE_CONFIG"], "$DSCACHE_CONFIG")
    base = (
        environ.get("XDG_CONFIG_HOME") or _expanded(environ.get("HOME", "~"), "$HOME") / ".config"
    )
    return Path(base) / "dscache" / "config.toml"


def project_file(cwd: Path | None) -> Path | None:
    """Return the nearest `dscache.toml` at or above `cwd`, or None."""
    folders = () if cwd is None else (cwd, *cwd.parents)
    return next((d / "dscache.toml" for d in folders if _is_file(d / "dscache.toml")), None)


def default_home(environ: Mapping[str, str]) -> Path:
    """Return `$XDG_CACHE_HOME/dscache`, or `~/.cache/dscache`."""
    base = environ.get("XDG_CACHE_HOME") or _expanded(environ.get("HOME", "~"), "$HOME") / ".cache"
    return Path(base) / "dscache"


def write_profile(path: Path, name: str, settings: Mapping[str, str]) -> None:
    """Write profile `name` to the user file, atomically and with mode 0600.

    It becomes the default profile if there is none yet. Comments in the file are lost.
    """
    document = read_settings(path)
    document.setdefault("profile", name)
    document.setdefault("profiles", {})[name] = dict(settings)
    _write(path, document)


def remove_profile(path: Path, name: str) -> None:
    """Remove profile `name` from the user file; neither needs to exist."""
    if not path.is_file():
        return
    document = read_settings(path)
    document.get("profiles", {}).pop(name, None)
    if document.get("profile") == name:
        del document["profile"]
    _write(path, document)


def _profile_name(
    flag: str | None, env: Mapping[str, str], documents: list[tuple[Owner, str, dict[str, Any]]]
) -> tuple[str, str]:
    if flag:
        return flag, "from --profile"
    if env.get("DSCACHE_PROFILE"):
        return env["DSCACHE_PROFILE"], "from $DSCACHE_PROFILE"
    named = [
        (document["profile"], file) for _, file, document in documents if "profile" in document
    ]
    return (str(named[-1][0]), f"from {named[-1][1]}") if named else ("", "")


def _check_project(
    project: Path, merged: Mapping[str, Any], sources: Mapping[str, Source], user_folder: Path
) -> None:
    """Raise ConfigError when a project file would have credentials sent to where it says, or
    datasets taken from where it says.

    It comes with a repository, and anybody may have written it. A cache that it names is used only
    if the user trusts it: its datasets are not checked at a hit.
    """
    owner = project.stat().st_uid
    foreign = owner not in (os.getuid(), 0)
    kept = withheld(merged, sources)
    homes = [n for n in _HOMES if n in sources and sources[n].owner is Owner.PROJECT]
    if not foreign and not homes and not kept:
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
    places = {item.source if item.credential == CHAIN else f"{item.source} ({item.credential})"
              for item in kept}  # fmt: skip
    raise ConfigError(
        f"{project}: names the {kept[0].endpoint}, but the credentials come from "
        f"{_names(sorted(places))}; if they may be sent there, run `dscache trust {project}`, or "
        "put the endpoint into a profile of your own"
    )


def _merge_variables(
    merged: dict[str, Any], sources: dict[str, Source], env: Mapping[str, str]
) -> None:
    for setting, variables in ENVIRONMENT.items():
        variable = next((variable for variable in variables if env.get(variable)), None)
        if variable is None:
            continue
        owner = Owner.AWS if variable.startswith("AWS_") else Owner.DSCACHE
        if owner is Owner.DSCACHE or setting not in merged:
            _merge(merged, sources, {setting: env[variable]}, Source(owner, f"${variable}"))


def _merge(
    merged: dict[str, Any], sources: dict[str, Source], settings: Mapping[str, Any], source: Source
) -> None:
    for name, value in settings.items():
        if name not in ENVIRONMENT:
            known = ", ".join(sorted(ENVIRONMENT))
            raise ConfigError(f"{source.name}: unknown setting {name[:80]!r}; known are {known}")
        if name == "shared_homes" and _is_list_of_strings(value):
            value = os.pathsep.join(value)
        if name == "cache_limit" and type(value) is int:
            value = str(value)
        if not isinstance(value, (str, Path)):
            kind = 'a size like "200GB", or bytes' if name == "cache_limit" else "a string"
            is_plain = isinstance(value, (bool, int, float)) and name not in SECRETS
            got = _shown(value) if is_plain else type(value).__name__
            raise ConfigError(f"{source.name}: {name}: expected {kind}, got {got}")
        check_setting(name, str(value), source.name)
        merged[name] = value
        sources[name] = source


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _shown(value: Any) -> str:
    try:
        return repr(value)[:80]
    except RecursionError:  # a.a.a.a… = 1 is a table in a table in a table …
        return type(value).__name__


def _expanded(path: str | Path, source: str) -> Path:
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):  # nobody's, or with a NUL
        raise ConfigError(
            f"{source}: {str(path)[:80]!r}: no such home directory; write the whole path"
        ) from None


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


def read_toml(path: Path, *, limit_bytes: int = MAX_FILE_BYTES) -> dict[str, Any] | None:
    """Return the content of a TOML file, or None if there is no such file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(content) > limit_bytes:
        raise ConfigError(f"{path}: larger than the {limit_bytes >> 10} KiB that settings need")
    # tomllib takes minutes for a.a.a.… on a line of a megabyte
    if any(len(line) > MAX_LINE_BYTES for line in content.splitlines()):
        raise ConfigError(f"{path}: a line of more than {MAX_LINE_BYTES >> 10} KiB")
    import tomllib  # not at the top: a cache hit without a file does not need it

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not TOML of settings: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or a number of more digits than Python converts
        raise ConfigError(f"{path}: not TOML: {error}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Return a file of settings, {} if it does not exist, with tables where they belong."""
    document = read_toml(path) or {}
    profiles = document.get("profiles", {})
    tables = [profiles, *profiles.values()] if isinstance(profiles, dict) else [profiles]
    if not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: profiles: expected tables [profiles.<name>]")
    if not isinstance(document.get("profile", ""), str):
        raise ConfigError(f"{path}: profile: expected the name of a profile")
    return document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    import tomli_w

    write_file(path, tomli_w.dumps(document).encode(), mode=PRIVATE)  # it holds secrets


def _names(places: Iterable[object]) -> str:
    return ", ".join(str(place) for place in places)
