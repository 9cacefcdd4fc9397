"""Network file systems, on which a lock may be visible on its own machine only."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"),
        *("orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
        *("fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.sshfs"),
    )
)
MOUNTS = Path("/proc/self/mountinfo")


def network_type(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the network file system that `path` is on, "" for a local one.

    `path` need not exist. `mounts` is described in proc_pid_mountinfo(5).
    """
    resolved = Path(os.path.realpath(path))
    best_depth, best_type = -1, ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split()[4]))
        depth = len(point.parts)
        if resolved.is_relative_to(point) and depth >= best_depth:  # a later mount covers it
            best_depth, best_type = depth, after.split()[0]
    return best_type if best_type in NETWORK else ""


def host() -> str:
    """Return this machine's name in characters that are safe in a file name."""
    return re.sub(r"[^0-9A-Za-z-]", "-", socket.gethostname())


def _unescaped(name: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
