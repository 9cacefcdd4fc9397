"""Scratch folders of builds. A builder that was killed leaves its own; a later build removes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "dscache-build-"  # of no folder that somebody else makes in the same place
SETTLED_S = 60.0  # longer than between making a folder and locking it


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """A new folder below `root`, locked while the block runs and removed at its end."""
    remove_left_over(root, time.time())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_over(root: Path, now: float) -> None:
    """Remove folders that nobody has locked: the kernel unlocks those of a killed process.

    By locks and not by name, since several builders, and `verify`, may share `root`.
    """
    for folder in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, or gone already
            if now - folder.stat().st_mtime >= SETTLED_S:
                with _locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises OSError when somebody else holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
