"""Environments for handlers: made by uv from a lock, content-addressed, built once, reused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from dscache.protocol.manifests import Lock

from ..failure import EnvironmentFailed
from .resolver import WORKER_REQUIREMENTS, Heartbeat, Resolver
from .sources import GitSource, PathSource, locked_source, split_pins
from .tools import HEARTBEAT_S

MARKER = "complete"
NAME_DIGITS = 32
UNUSED_S = 14 * 86_400.0


def lock_digest(lock: Lock) -> str:
    """SHA-256 of the lock in hex: equal digests mean equal environments."""
    return hashlib.sha256(msgspec.json.encode(lock, order="deterministic")).hexdigest()


class Environments:
    """The environments below one folder. Several processes may share the folder.

    Args:
        root: the folder; made when missing.
        find_links: folders with wheels that are on no index.
        worker_requirements: what every environment gets besides the handler.
        index_url: package index instead of uv's default; may carry credentials.
        cache: uv's cache; uv's own choice when None. On the file system of `root`, installing
            is linking.
    """

    def __init__(
        self,
        root: Path,
        *,
        find_links: Sequence[str] = (),
        worker_requirements: Sequence[str] = WORKER_REQUIREMENTS,
        index_url: str = "",
        cache: Path | None = None,
    ) -> None:
        self._root = root.absolute()
        self._resolver = Resolver(self._root, find_links, worker_requirements, index_url, cache)

    def resolve(self, source: str, version: str, *, heartbeat: Heartbeat) -> Lock:
        """Find out what `source` (a template with `{version}`) consists of, now.

        Raises EnvironmentFailed: no such version or tag, requirements that contradict each other,
        an index that does not answer, …
        """
        self._root.mkdir(parents=True, exist_ok=True)
        return self._resolver.resolve(source, version, heartbeat)

    def ensure(self, lock: Lock, *, heartbeat: Heartbeat) -> Path:
        """The interpreter of the lock's environment; the environment is made when it is missing.

        Making one takes about a second with a warm cache, otherwise what the downloads take.
        Several processes that ensure the same lock make it once. Raises EnvironmentFailed.
        """
        here = self._resolver.python_version
        if lock.python != here:
            raise EnvironmentFailed(
                f"{lock.source} is locked for Python {lock.python}, but this builder runs Python "
                f"{here}; run the builder with Python {lock.python}, or release the handler anew"
            )
        name = lock_digest(lock)[:NAME_DIGITS]
        return self._ensured(name, lambda python: self._install(lock, python, heartbeat), heartbeat)

    def ensure_working_copy(self, folder: Path, *, heartbeat: Heartbeat) -> Path:
        """The interpreter of an environment in which the package in `folder` can be edited.

        It is made anew only when the package's pyproject.toml changes. Raises EnvironmentFailed.
        """
        folder = folder.absolute()
        project = folder / "pyproject.toml"
        if not project.is_file():
            raise EnvironmentFailed(f"{folder}: no pyproject.toml there, so it is not a package")
        told = f"{folder}\0{self._resolver.python_version}\0".encode() + project.read_bytes()
        name = "work-" + hashlib.sha256(told).hexdigest()[:NAME_DIGITS]
        install = self._resolver.install_working_copy
        return self._ensured(name, lambda python: install(folder, python, heartbeat), heartbeat)

    def prune(
        self,
        keep: Collection[Lock],
        *,
        unused_s: float = UNUSED_S,
        now: Callable[[], float] = time.time,
    ) -> list[str]:
        """Remove environments that are not in `keep` and were not ensured for `unused_s` seconds.

        Returns the names of their folders. Half-made ones of that age go as well.
        """
        kept = {lock_digest(lock)[:NAME_DIGITS] for lock in keep}
        removed = []
        for folder in sorted(self._root.glob("*/pyvenv.cfg")):
            name = folder.parent.name
            if name not in kept and self._removed(folder.parent, now() - unused_s):
                removed.append(name)
        return removed

    def _removed(self, folder: Path, unused_since: float) -> bool:
        with contextlib.suppress(Timeout), self._file_lock(folder.name).acquire(timeout=0):
            marker = folder / MARKER
            dated = marker if marker.exists() else folder
            if dated.stat().st_mtime > unused_since:
                return False
            marker.unlink(missing_ok=True)  # from now on it does not exist for others
            shutil.rmtree(folder, ignore_errors=True)
            return True
        return False

    def _ensured(self, name: str, install: Callable[[Path], None], heartbeat: Heartbeat) -> Path:
        folder = self._root / name
        python = folder / "bin" / "python"
        if not _complete(folder):
            with self._locked(name, heartbeat):
                if not _complete(folder):
                    self._make(folder, install, heartbeat)
        with contextlib.suppress(FileNotFoundError):
            os.utime(folder / MARKER)  # it was used now
        return python

    def _make(self, folder: Path, install: Callable[[Path], None], heartbeat: Heartbeat) -> None:
        """Make the environment in place (environments cannot be renamed); the marker comes last."""
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._resolver.make_venv(folder, heartbeat)
            install(folder / "bin" / "python")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        partial = folder / f"{MARKER}.partial"
        partial.write_text(f"{sys.version}\n")
        partial.replace(folder / MARKER)

    def _install(self, lock: Lock, python: Path, heartbeat: Heartbeat) -> None:
        source = locked_source(lock.source)
        hashed, direct = split_pins(lock.requirements)
        if isinstance(source, GitSource):
            self._resolver.check_tag(source, lock.commit, heartbeat)
            direct += f"{source.at(lock.commit)}\n"
        elif isinstance(source, PathSource):
            wheel = self._resolver.wheel_of(source, heartbeat, lock.wheel_sha256)
            direct += f"{wheel}\n"
        self._resolver.install(python, hashed, direct, heartbeat)

    def _file_lock(self, name: str) -> FileLock:
        folder = self._root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")

    @contextlib.contextmanager
    def _locked(self, name: str, heartbeat: Heartbeat) -> Iterator[None]:
        lock = self._file_lock(name)
        while True:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=HEARTBEAT_S)
                break
            heartbeat()
        try:
            yield
        finally:
            lock.release()


def _complete(folder: Path) -> bool:
    """Whether the environment is whole, and the Python it was made with is still there."""
    return (folder / MARKER).exists() and (folder / "bin" / "python").exists()
