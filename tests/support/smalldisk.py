"""A store's server whose disk is small: it sees its data folder on a file system of its own."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

NAMESPACE = "-m" if os.geteuid() == 0 else "-rm"


def on_a_small_disk(server: Path, folder: Path, mebibytes: int) -> Path:
    """Write a program that runs `server` with `mebibytes` for its data; return its path.

    The server is `minio server <data> …`. It keeps its process id, and nobody else sees its data.
    """
    script = f"""#!/bin/sh
exec unshare {NAMESPACE} --propagation private sh -c '
mount -t tmpfs -o size={mebibytes}m tmpfs "$2" && exec {shlex.quote(str(server))} "$@"
' sh "$@"
"""
    program = folder / "small-disk-server"
    program.write_text(script)
    program.chmod(0o755)
    return program
