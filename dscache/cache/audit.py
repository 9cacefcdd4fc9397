"""Find the damaged files of a dataset folder."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..errors import IntegrityError
from ..folder import contents
from ..folder.checksums import is_intact
from ..folder.contents import check_members, held_names
from ..protocol.manifests import Member

READERS = 4  # hashing releases the GIL; more threads would only make a disk seek


class Damage(NamedTuple):
    """A damaged or missing file of a dataset, and what is wrong with it."""

    name: str
    problem: str

    @property
    def is_description(self) -> bool:
        """Whether the file is manifest.json or partial.json, which describe the others."""
        return self.name in (contents.MANIFEST, contents.PARTIAL)


def find_damage(folder: Path) -> list[Damage]:
    """Read every file of a dataset, whose folder has the name of its key, and return the damaged
    ones in the ready marker's order.

    If manifest.json or partial.json is damaged, or another dataset's, the members cannot be
    checked, and only that file is returned.
    """
    try:
        live = contents.read_manifest(folder)
        check_members(live)
    except FileNotFoundError:
        return [Damage(contents.MANIFEST, "missing")]
    except IntegrityError:
        return [Damage(contents.MANIFEST, "damaged")]
    if live.spec.key != folder.name:
        return [Damage(contents.MANIFEST, f"describes another dataset, {live.spec.key}")]
    try:
        held = held_names(live, contents.read_contents(folder))
    except IntegrityError:
        return [Damage(contents.PARTIAL, "damaged")]
    members = [member for member in live.members if member.name in held]
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        problems = pool.map(lambda member: _problem(folder, member), members)
        return [
            Damage(member.name, problem)
            for member, problem in zip(members, problems, strict=True)
            if problem
        ]


def _problem(folder: Path, member: Member) -> str:
    path = folder / member.name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is no file"
        if status.st_size != member.size:
            return f"{status.st_size} bytes instead of {member.size}"
        return "" if is_intact(path, member) else "its bytes differ from the ready marker"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
