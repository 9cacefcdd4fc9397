"""The environment variables of handlers, and of uv and git. Pure.

Handlers get only the variables named here: no credentials, no configuration, no proxies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
PASSED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TZ")
# One thread per worker: there is a worker for every core, and threads do not survive a fork.
ONE_THREAD = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "VIPS_CONCURRENCY",
)
# Images are allocated and freed all the time: returning their pages to the kernel each time made
# building raw records five times slower.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


def handler_environment(python: Path, work: Path, outer: Mapping[str, str]) -> dict[str, str]:
    """The variables of a handler host.

    Args:
        python: the environment's interpreter; its folder comes first in PATH.
        work: scratch folder, used as home and temporary folder.
        outer: the builder's own environment.
    """
    passed = {name: outer[name] for name in PASSED_ON if name in outer}
    return {
        "LANG": "C.UTF-8",
        **passed,
        "PATH": f"{python.parent}:{SYSTEM_PATH}",
        "HOME": str(work),
        "TMPDIR": str(work),
        "PYTHONHASHSEED": "0",  # the order of a set must not make two builds differ
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # the traceback of a crash in native code goes to the log
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **dict.fromkeys(ONE_THREAD, "1"),
        **MALLOC,
    }


_SECRETS = ("AWS_", "DSCACHE_", "MINIO_")
_MISLEADING = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT")


def tool_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """The variables of uv and git, which need the network but no credentials of the store.

    Building a package from source runs that package's code.
    """
    kept = {
        name: value
        for name, value in outer.items()
        if not name.startswith(_SECRETS) and name not in _MISLEADING
    }
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "PATH": outer.get("PATH", os.defpath)}
