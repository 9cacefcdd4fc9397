"""What the value of a setting may look like. Pure.

Everything here ends up in URLs, headers or paths. A line break behind a key, as in
`DSCACHE_ACCESS_KEY="$(printf 'key\\n')"`, would otherwise fail much later, with the request in the
message.
"""

from __future__ import annotations

import os
import re

from .errors import ConfigError

MAX_PORT = 65535
_LABEL = "[A-Za-z0-9_-]{1,63}"
_URL = re.compile(
    rf"https?://(?:{_LABEL}(?:\.{_LABEL})*\.?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/[!-~]*)?",
    re.IGNORECASE,
)
_VISIBLE = re.compile(r"[!-~]*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_REGION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHOWN = 80  # characters of a value in a message

HOW_TO_WRITE_A_URL = "is not a URL; expected http://host:port or https://host"


def check_setting(name: str, value: str, source: str) -> None:
    """Raise ConfigError if the setting cannot have that value; "" is none, and always possible.

    The message names the setting and `source`, and never shows a secret.
    """
    problem = _problem(name, value) if value else None
    if problem:
        raise ConfigError(f"{source}: {name}: {problem}")


def _problem(name: str, value: str) -> str | None:
    if name in ("endpoint", "public_endpoint", "console"):
        return _problem_of_url(value)
    if name in ("access_key", "session_token"):
        return None if _VISIBLE.fullmatch(value) else _characters(value, "ASCII without spaces")
    if name == "secret_key":  # is not sent, and stores differ in what it may be
        clean = value.isprintable() and value == value.strip()
        return None if clean else _characters(value, "text without spaces around it")
    if name in ("bucket", "region"):
        form = _BUCKET if name == "bucket" else _REGION
        wanted = "expected letters, digits, '.', '_' and '-'"
        return None if form.fullmatch(value) else f"{wanted}, got {value[:_SHOWN]!r}"
    if name in ("home", "shared_homes"):  # any bytes, as names of files may have
        return None if _is_file_name(value) else f"not a path: {value[:_SHOWN]!r}"
    text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None if text.isprintable() else f"expected printable text, got {value[:_SHOWN]!r}"


def _characters(value: str, wanted: str) -> str:
    if value != value.strip():
        return "has a space or a line break before or behind it; remove that"
    return f"holds characters that it cannot have; expected {wanted}"


def _problem_of_url(value: str) -> str | None:
    if "@" in value:  # not shown: a password may stand before it
        return "holds a user name or a password; write those as access_key and secret_key"
    if "?" in value or "#" in value:
        return f"{re.split('[?#]', value)[0][:_SHOWN]!r} has something behind '?' or '#'"
    match = _URL.fullmatch(value)
    if match is None:
        return f"{value[:_SHOWN]!r} {HOW_TO_WRITE_A_URL}"
    if match["port"] and not 0 < int(match["port"]) <= MAX_PORT:
        return f"{value[:_SHOWN]!r}: a port is a number from 1 to {MAX_PORT}"
    if match["ipv6"] and not _is_ipv6(match["ipv6"]):
        return f"{value[:_SHOWN]!r}: not an IPv6 address"
    return None


def _is_file_name(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _is_ipv6(address: str) -> bool:
    import ipaddress  # not at the top: a cache hit does not need it

    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True
