"""Run uv and git for environments: resolve sources to pins with hashes, install exactly those."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dscache.protocol.manifests import Lock

from ..failure import EnvironmentFailed
from .sources import (
    GitSource,
    IndexSource,
    PathSource,
    available,
    listed,
    missing_package,
    missing_version,
    one_line,
    parse_source,
    parse_tags,
    same_version,
    shown,
    wheel_parts,
    without_handler,
)
from .tools import Finished, run_tool, uv_program

WORKER_REQUIREMENTS = ("dscache-sdk", "blake3", "isal")
TOO_HIGH_VERSION = "999999999"

Heartbeat = Callable[[], None]


class Resolver:
    """Runs uv and git in one folder; see `Environments` for the arguments."""

    def __init__(self, root: Path, find_links: Sequence[str], index_url: str) -> None:
        self._root = root
        self._find_links = [str(Path(folder).expanduser().absolute()) for folder in find_links]
        self._variables = {"UV_NO_PROGRESS": "1"}
        if index_url:
            self._variables["UV_DEFAULT_INDEX"] = (
                index_url  # not an argument, which other users can see
            )

    @property
    def python_version(self) -> str:
        """Major and minor version of this interpreter; all environments have the same."""
        return f"{sys.version_info.major}.{sys.version_info.minor}"

    def resolve(self, template: str, version: str, heartbeat: Heartbeat) -> Lock:
        """Pin a source and its requirements. Raises EnvironmentFailed."""
        source = parse_source(template, version)
        if isinstance(source, IndexSource):
            pins = self._compile(source.requirement, source.text, heartbeat)
            return Lock(source=source.text, requirements=pins, python=self.python_version)
        if isinstance(source, GitSource):
            return self._resolve_git(source, heartbeat)
        return self._resolve_path(source, version, heartbeat)

    def _resolve_git(self, source: GitSource, heartbeat: Heartbeat) -> Lock:
        commit = self._commit_of(source, heartbeat)
        address = source.at(commit)
        pins = self._compile(address, source.text, heartbeat)
        return Lock(
            source=source.text,
            requirements=without_handler(pins, f"git+{source.url}@"),
            python=self.python_version,
            commit=commit,
        )

    def _resolve_path(self, source: PathSource, version: str, heartbeat: Heartbeat) -> Lock:
        wheel = self.wheel_of(source, heartbeat)
        _, actual = wheel_parts(wheel)
        if not same_version(actual, version):
            raise EnvironmentFailed(
                f"{source.path}: this is version {actual}, but version {version} is requested; "
                "correct handler_version, or `source` in builder.toml"
            )
        pins = self._compile(str(wheel), source.text, heartbeat)
        return Lock(
            source=source.text,
            requirements=without_handler(pins, str(wheel), wheel.as_uri()),
            python=self.python_version,
            wheel=wheel.name,
            wheel_sha256=_sha256(wheel),
        )

    def _commit_of(self, source: GitSource, heartbeat: Heartbeat) -> str:
        tags = self._tags(source, heartbeat)
        if source.tag not in tags:
            raise EnvironmentFailed(
                f"{shown(source.url)}: no such tag {source.tag!r} (available: "
                f"{listed(sorted(tags))})"
            )
        return tags[source.tag]

    def check_tag(self, source: GitSource, commit: str, heartbeat: Heartbeat) -> None:
        """Raise EnvironmentFailed if the tag is no longer at the locked commit."""
        current = self._tags(source, heartbeat).get(source.tag)
        if current != commit:
            change = f"it is now at commit {current}" if current else "it no longer exists"
            raise EnvironmentFailed(
                f"{shown(source.url)}: the tag {source.tag!r} has moved: it was at commit {commit} "
                f"when this version was first used, {change}; give the new code a new tag"
            )

    def _tags(self, source: GitSource, heartbeat: Heartbeat) -> dict[str, str]:
        command = ["git", "ls-remote", "--tags", "--", source.url]
        listing = run_tool(command, cwd=self._root, heartbeat=heartbeat)
        if listing.code != 0:
            raise EnvironmentFailed(
                f"{shown(source.url)}: cannot list its tags: {one_line(listing.errors)}",
                shown(listing.errors),
            )
        return parse_tags(listing.output)

    def wheel_of(self, source: PathSource, heartbeat: Heartbeat, locked_sha256: str = "") -> Path:
        """The wheel of a path: the file itself, or built from the folder. A copy is kept.

        Raises EnvironmentFailed, also if its digest is not the locked one.
        """
        kept = list(self._root.glob(f"wheels/{locked_sha256}/*.whl")) if locked_sha256 else []
        if kept:
            return kept[0]
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            wheel = self._new_wheel(source.path, Path(folder), heartbeat)
            digest = _sha256(wheel)
            if locked_sha256 and digest != locked_sha256:
                raise EnvironmentFailed(
                    f"{source.path} has changed: this version was first used with the wheel "
                    f"sha256:{locked_sha256}, but is now sha256:{digest}; give it a new version"
                )
            target = self._root / "wheels" / digest / wheel.name
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{wheel.name}.partial")
            shutil.copyfile(wheel, partial)
            return partial.replace(target)

    def _new_wheel(self, path: Path, folder: Path, heartbeat: Heartbeat) -> Path:
        if path.suffix == ".whl" and path.is_file():
            return path
        if not (path / "pyproject.toml").is_file():
            raise EnvironmentFailed(
                f"{path}: neither a wheel nor a folder with a pyproject.toml; correct `source` in "
                "builder.toml"
            )
        done = self._uv(["build", "--wheel", "--out-dir", folder, path], heartbeat)
        if done.code != 0:
            raise self._failed(f"{path}: cannot build a wheel from it", done)
        return next(folder.glob("*.whl"))

    def _compile(self, requirement: str, source: str, heartbeat: Heartbeat) -> str:
        """Pins with hashes for a requirement and for what every environment contains."""
        requirements = "\n".join([requirement, *WORKER_REQUIREMENTS])
        done = self._compiled(requirements, heartbeat)
        if done.code != 0:
            raise self._unresolved(source, done, heartbeat)
        return done.output

    def _compiled(self, requirements: str, heartbeat: Heartbeat) -> Finished:
        options = ["--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"]
        command = ["pip", "compile", "-q", *options, *self._links(), *self._python(), "-"]
        return self._uv(command, heartbeat, text=requirements + "\n")

    def _unresolved(self, source: str, done: Finished, heartbeat: Heartbeat) -> EnvironmentFailed:
        missing = missing_version(done.errors)
        if name := missing_package(done.errors):
            return EnvironmentFailed(
                f"{shown(source)}: the package {name} is neither on the index nor in "
                "`find_links`; correct `source`, or add a folder with its wheels to `find_links`, "
                "in builder.toml",
                shown(done.errors),
            )
        if missing is None:
            return self._failed(f"{shown(source)}: cannot resolve it", done)
        name, version = missing
        refusal = self._compiled(f"{name}>{TOO_HIGH_VERSION}", heartbeat)
        wheels = [wheel for folder in self._find_links for wheel in Path(folder).glob("*.whl")]
        versions = listed(available(name, refusal.errors, wheels))
        return EnvironmentFailed(
            f"{name}=={version}: no such version (available: {versions})", shown(done.errors)
        )

    def make_venv(self, folder: Path, heartbeat: Heartbeat) -> None:
        """Make an empty environment. Raises EnvironmentFailed."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._must(
            ["venv", "-q", "--no-project", *self._python(), folder],
            "a virtual environment",
            heartbeat,
        )

    def install(self, python: Path, hashed: str, direct: str, heartbeat: Heartbeat) -> None:
        """Install pins with their hashes, then packages without hashes and without requirements."""
        command: list[str | Path] = ["pip", "install", "-q", "--python", python]
        what = "the handler's requirements"
        with self._requirements(hashed) as file:
            strict = ["--no-deps", "--require-hashes", *self._links(), "-r"]
            self._must([*command, *strict, file], what, heartbeat)
        if direct:
            with self._requirements(direct) as file:
                self._must([*command, "--no-deps", "-r", file], "the handler's package", heartbeat)

    def install_working_copy(self, folder: Path, python: Path, heartbeat: Heartbeat) -> None:
        """Install a package in editable mode, with its requirements."""
        pins = self._compile(str(folder), str(folder), heartbeat)
        others = without_handler(pins, str(folder), folder.as_uri())
        self.install(python, others, f"-e {folder}\n", heartbeat)

    @contextmanager
    def _requirements(self, text: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            file = Path(folder) / "requirements.txt"
            file.write_text(text)
            yield file

    def _must(self, command: Sequence[str | Path], what: str, heartbeat: Heartbeat) -> None:
        done = self._uv(command, heartbeat)
        if done.code != 0:
            raise self._failed(f"cannot install {what}", done)

    def _uv(self, command: Sequence[str | Path], heartbeat: Heartbeat, text: str = "") -> Finished:
        return run_tool(
            [uv_program(), "--color", "never", *command],
            cwd=self._root,
            heartbeat=heartbeat,
            text=text,
            variables=self._variables,
        )

    def _failed(self, message: str, done: Finished) -> EnvironmentFailed:
        return EnvironmentFailed(f"{message}: {one_line(done.errors)}", shown(done.errors))

    def _links(self) -> list[str]:
        return [part for folder in self._find_links for part in ("--find-links", folder)]

    def _python(self) -> list[str]:
        return ["--python", sys.executable]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
