"""Collect the record files of a plain handler, wherever it says that they are."""

from __future__ import annotations

import shutil
from pathlib import Path

from .failures import HostFailure


def collect(path: Path, target: Path, *, scratch: Path, raw: Path) -> None:
    """Bring the record file `path` to `target`, which is in the scratch folder.

    Files of the scratch folder are moved. Those of the raw data, which a handler may return as
    they are, are copied: nothing outside the scratch folder is ever moved or changed. Links are
    resolved first.

    Raises HostFailure for a file that is in neither folder.
    """
    real = path.resolve()
    if real.is_relative_to(scratch.resolve()):
        shutil.move(real, target)
    elif real.is_relative_to(raw.resolve()):
        shutil.copyfile(real, target)
    else:
        raise HostFailure(
            "handler",
            f"as_tfrecord() returned {path}, which is {real}: neither in the handler's working "
            "directory nor in its raw data; write record files into the current directory",
        )
