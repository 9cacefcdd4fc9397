"""File systems that other machines share: there a lock may hold on its own machine alone."""

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
    """The type of the network file system that `path` is on (it need not exist), "" on a local one.

    The kernel's list of mounts is described in proc_pid_mountinfo(5).
    """
    place = Path(os.path.realpath(path))
    best, found = -1, ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split()[4]))
        if place.is_relative_to(point) and len(point.parts) >= best:  # a later mount covers
            best, found = len(point.parts), after.split()[0]
    return found if found in NETWORK else ""


def host() -> str:
    """This machine's name, fit for the name of a file."""
    return re.sub(r"[^0-9A-Za-z-]", "-", socket.gethostname())


def _unescaped(name: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
