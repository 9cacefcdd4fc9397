"""Sources of handler code, and parsing the output of uv and git. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from dscache.spec import HANDLER_VERSION

from ..failure import EnvironmentFailed

VERSION_FIELD = "{version}"
SHOWN_VERSIONS = 12
_INDEX_SOURCE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9,._ -]*\])? *== *\{version\}")
_WHEEL_NAME = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")
_NO_VERSION = re.compile(r"there is no version of ([\w.-]+)(\[[^]]*\])?==(\S+?)(?= and |, |\s|$)")
_NO_PACKAGE = re.compile(
    r"(\S+) was not found in the (package registry|provided package locations)"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class IndexSource:
    """A release on the package index or in a folder of wheels; `requirement`: `name==1.0.0`."""

    text: str
    requirement: str
    name: str


@dataclass(frozen=True)
class GitSource:
    """A tag of a git repository; `fragment` is "" or `#subdirectory=…`."""

    text: str
    url: str
    tag: str
    fragment: str

    def at(self, commit: str) -> str:
        """The requirement for one commit."""
        return f"git+{self.url}@{commit}{self.fragment}"


@dataclass(frozen=True)
class PathSource:
    """A wheel, or a folder with a pyproject.toml, on this machine."""

    text: str
    path: Path


Source = IndexSource | GitSource | PathSource


def parse_source(template: str, version: str) -> Source:
    """Parse a `source` of builder.toml, with the version put in.

    Templates: ``name=={version}``, ``git+https://…@{version}``, ``git+file:///…@{version}``, the
    path of a wheel or of a folder with a pyproject.toml. Raises EnvironmentFailed.
    """
    if not HANDLER_VERSION.fullmatch(version):
        raise EnvironmentFailed(f"handler_version {version!r} is not a version or a tag")
    formatted = template.replace(VERSION_FIELD, version)
    if _INDEX_SOURCE.fullmatch(template):
        name = re.split(r"[\[= ]", template, maxsplit=1)[0]
        return IndexSource(formatted, formatted.replace(" ", ""), name)
    if template.startswith("git+"):
        return _git_source(template, formatted)
    if template.startswith(("/", "./", "../", "~")) or template.endswith(".whl"):
        return PathSource(formatted, _expanded(formatted))
    raise EnvironmentFailed(
        f"source {shown(template)!r} is invalid; write `name=={VERSION_FIELD}`, "
        f"`git+https://…@{VERSION_FIELD}`, or the path of a wheel or of a package's folder"
    )


def locked_source(text: str) -> Source:
    """Parse the source of a lock, which contains the version. Raises EnvironmentFailed."""
    if text.startswith("git+"):
        return _split_git(text, text)
    name, equal, version = text.partition("==")
    if equal:
        return parse_source(f"{name.strip()}=={VERSION_FIELD}", version.strip())
    return PathSource(text, _expanded(text))


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError):  # nobody's, or with a NUL
        raise EnvironmentFailed(
            f"source {text[:200]!r}: no such home directory; write the whole path"
        ) from None


def _git_source(template: str, formatted: str) -> GitSource:
    if VERSION_FIELD not in template:
        raise EnvironmentFailed(
            f"source {shown(template)!r}: without {VERSION_FIELD}, all versions would be the same "
            f"code; write git+https://…@{VERSION_FIELD}"
        )
    return _split_git(template, formatted)


def _split_git(template: str, formatted: str) -> GitSource:
    body, mark, fragment = formatted.removeprefix("git+").partition("#")
    url, at, tag = body.rpartition("@")
    if not at or "/" in tag or "://" not in url:
        raise EnvironmentFailed(
            f"source {shown(template)!r}: expected git+<scheme>://…@{VERSION_FIELD}"
        )
    return GitSource(formatted, url, tag, mark + fragment)


def shown(text: str) -> str:
    """The text without the credentials in its URLs."""
    return _CREDENTIALS.sub("***@", text)


def split_pins(compiled: str) -> tuple[str, str]:
    """Divide pinned requirements into those with hashes and those that are URLs or paths.

    An entry is a line that begins in the first column, with the indented lines after it.
    """
    hashed: list[str] = []
    direct: list[str] = []
    target = hashed
    for line in compiled.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():
            target = direct if _is_address(line) else hashed
        target.append(line)
    return _lines(hashed), _lines(direct)


def _is_address(line: str) -> bool:
    return " @ " in line or "/" in line.split()[0]


def without_handler(compiled: str, *addresses: str) -> str:
    """The pinned requirements without the handler itself.

    Its entry starts with one of `addresses`: uv writes a path as given, or as a URL.
    """
    hashed, direct = split_pins(compiled)
    others = [line.removesuffix("\\").rstrip() for line in direct.splitlines() if line[0] > " "]
    kept = [line for line in others if not line.split(" @ ")[-1].startswith(addresses)]
    return hashed + _lines(kept)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def parse_tags(listing: str) -> dict[str, str]:
    """Parse `git ls-remote --tags`: tag -> commit, also for annotated tags."""
    commits: dict[str, str] = {}
    for line in listing.splitlines():
        commit, _, name = line.partition("\trefs/tags/")
        if name:
            tag = name.removesuffix("^{}")
            if name.endswith("^{}") or tag not in commits:
                commits[tag] = commit
    return commits


def wheel_parts(path: Path) -> tuple[str, str]:
    """Canonical name and version of a wheel, from its file name; ("", "") if it is not a wheel."""
    match = _WHEEL_NAME.fullmatch(path.name)
    return (canonicalize_name(match["name"]), match["version"]) if match else ("", "")


def same_version(one: str, other: str) -> bool:
    """Whether two spellings mean the same version, as PEP 440 defines it.

    Text that is not a version, such as a tag, is compared as wheels spell it (`-` is `_`).
    """
    versions = _version(one), _version(other)
    if None in versions:
        return canonicalize_name(one) == canonicalize_name(other)
    return versions[0] == versions[1]


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except ValueError:  # InvalidVersion, or more digits than Python converts
        return None


def available(name: str, output: str, wheels: Iterable[Path]) -> list[str]:
    """Versions of a distribution, from the wheels and uv's refusal of a version too high."""
    clause = output.partition("only ")[2].partition("and you require")[0]
    named = re.findall(rf"{re.escape(name)}(==|<=)([^\s,]+)", clause)
    in_folders = {
        version for kind, version in map(wheel_parts, wheels) if kind == canonicalize_name(name)
    }
    exact = {version for sign, version in named if sign == "=="} | in_folders
    upper = {version for sign, version in named if sign == "<="} - in_folders
    return [f"{version} and older" for version in upper] + sorted(exact, key=_version_order)


def _version_order(text: str) -> tuple[Version, str]:
    """Sort key: what is not a version comes before the oldest one."""
    return _version(text) or Version("0.dev0"), text


def listed(versions: list[str]) -> str:
    """`1.0.0, 1.1.0`, of many the newest SHOWN_VERSIONS, or `none`."""
    more = "…, " if len(versions) > SHOWN_VERSIONS else ""
    return more + ", ".join(versions[-SHOWN_VERSIONS:]) if versions else "none"


def missing_version(output: str) -> tuple[str, str] | None:
    """(name, version) of the release that uv did not find, or None."""
    match = _NO_VERSION.search(" ".join(output.split()))
    return (match[1], match[3]) if match else None


def missing_package(output: str) -> str:
    """The name of the package of which uv found no version at all, or ""."""
    match = _NO_PACKAGE.search(" ".join(output.split()))
    return match[1] if match else ""


def one_line(output: str) -> str:
    """The error and the innermost cause in the output of uv or git, as one line."""
    lines = [line.strip() for line in shown(output).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "fatal:", "× "))]
    causes = [line for line in lines if line.startswith("cause:")]
    gist = [*errors[:1], *causes[-1:]] or lines[-1:]
    return "; ".join(re.sub(r"^(error|fatal|cause): *|^× *", "", line) for line in gist)
