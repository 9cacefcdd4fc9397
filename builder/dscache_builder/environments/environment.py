"""Environments for handlers: made once by uv from a lock, named by its digest, reused."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from dscache.protocol.manifests import Lock
from dscache.terminal import logger

from ..failure import EnvironmentFailed
from .resolver import Heartbeat, Resolver
from .sources import GitSource, PathSource, locked_source, split_pins
from .tools import HEARTBEAT_S

log = logger("dscache_builder")

MARKER = "complete"
NAME_DIGITS = 32
_NAME = re.compile(rf"(work-)?[0-9a-f]{{{NAME_DIGITS}}}")


def lock_digest(lock: Lock) -> str:
    """SHA-256 of the lock in hex: equal digests mean equal environments."""
    return hashlib.sha256(msgspec.json.encode(lock, order="deterministic")).hexdigest()


class Environments:
    """The environments in one folder, which several processes may share.

    Args:
        root: the folder; created if missing.
        find_links: folders with wheels that are on no index.
        index_url: package index instead of uv's default; may contain credentials.
    """

    def __init__(
        self,
        root: Path,
        *,
        find_links: Sequence[str] = (),
        index_url: str = "",
    ) -> None:
        self._root = root.absolute()
        self._resolver = Resolver(self._root, find_links, index_url)

    def resolve(self, source: str, version: str, *, heartbeat: Heartbeat) -> Lock:
        """Resolve `source` (a template with `{version}`) to pinned requirements.

        Raises EnvironmentFailed: no such version or tag, requirements in conflict, an index that
        does not respond, …
        """
        self._root.mkdir(parents=True, exist_ok=True)
        return self._resolver.resolve(source, version, heartbeat)

    def ensure(self, lock: Lock, *, heartbeat: Heartbeat) -> Path:
        """Return the interpreter of the lock's environment, which is made if it is missing.

        That takes about a second with a warm cache, otherwise as long as the downloads. Of several
        processes, one makes it and the others wait. Raises EnvironmentFailed.
        """
        running = self._resolver.python_version
        if lock.python != running:
            raise EnvironmentFailed(
                f"{lock.source} is locked for Python {lock.python}, but this builder runs Python "
                f"{running}; run the builder with Python {lock.python}, or release a new version "
                "of the handler"
            )
        name = lock_digest(lock)[:NAME_DIGITS]
        return self._ensured(name, lambda python: self._install(lock, python, heartbeat), heartbeat)

    def ensure_working_copy(self, folder: Path, *, heartbeat: Heartbeat) -> Path:
        """Return the interpreter of an environment with an editable install of `folder`.

        It is made again only if the package's pyproject.toml changes. Raises EnvironmentFailed.
        """
        folder = folder.absolute()
        project = folder / "pyproject.toml"
        if not project.is_file():
            raise EnvironmentFailed(f"{folder}: not a package, because it has no pyproject.toml")
        identity = f"{folder}\0{self._resolver.python_version}\0".encode() + project.read_bytes()
        name = "work-" + hashlib.sha256(identity).hexdigest()[:NAME_DIGITS]
        install = self._resolver.install_working_copy
        return self._ensured(name, lambda python: install(folder, python, heartbeat), heartbeat)

    def prune(self, unused_s: float) -> list[str]:
        """Remove environments that were last ensured more than `unused_s` seconds ago.

        One that is being made, or is `in_use`, stays. Wheels stay as well: one that was built from
        a folder is the only copy of its version once the folder has changed. Returns the names of
        the removed folders. Errors are logged.
        """
        unused_since = time.time() - unused_s
        removed = []
        try:
            for folder in sorted(self._root.glob("*")):
                if _NAME.fullmatch(folder.name) and self._remove_unused(folder, unused_since):
                    removed.append(folder.name)
        except OSError as error:
            log.warning("removing unused environments: %s", error)
        return removed

    def _remove_unused(self, folder: Path, unused_since: float) -> bool:
        with contextlib.suppress(Timeout), self._file_lock(folder.name).acquire(timeout=0):
            marker = folder / MARKER
            dated = marker if marker.exists() else folder
            if dated.stat().st_mtime > unused_since or _is_in_use(folder):
                return False
            log.info("removing the unused environment %s", folder.name)
            marker.unlink(missing_ok=True)  # first: a half-removed environment is incomplete
            shutil.rmtree(folder, ignore_errors=True)
            return True
        return False

    def _ensured(self, name: str, install: Callable[[Path], None], heartbeat: Heartbeat) -> Path:
        folder = self._root / name
        with self._locked(name, heartbeat):
            if not _is_complete(folder):
                self._make(folder, install, heartbeat)
            os.utime(folder / MARKER)  # under the lock: `prune` must not miss this use
        return folder / "bin" / "python"

    def _make(self, folder: Path, install: Callable[[Path], None], heartbeat: Heartbeat) -> None:
        """Make the environment in place (it cannot be renamed later); write the marker last."""
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


def _is_complete(folder: Path) -> bool:
    """Whether the environment is complete, and the Python that it was made with still exists."""
    return (folder / MARKER).exists() and (folder / "bin" / "python").exists()


@contextlib.contextmanager
def in_use(python: Path) -> Iterator[None]:
    """Keep the environment of this interpreter from being removed while the block runs."""
    with _flocked(python.parent.parent, fcntl.LOCK_SH):
        yield


def _is_in_use(folder: Path) -> bool:
    try:
        with _flocked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True


@contextlib.contextmanager
def _flocked(folder: Path, operation: int) -> Iterator[None]:
    """Lock a folder; the kernel releases the locks of a process that is killed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
