"""From a ready marker and presigned URLs to a folder of verified files.

Nothing appears under the destination's name before all of it is there and verified. What an
interrupted download has received stays in a hidden folder beside it, and the next one resumes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import IntegrityError, NoSpace, UsageError
from ..folder import contents
from ..folder.contents import MANIFEST, PART_SUFFIX, PARTIAL, check_members, contents_of, held_names
from ..folder.directory import Directory
from ..folder.selection import EVERYTHING, Selection, select
from ..protocol import manifests
from ..protocol.manifests import Live, Member
from ..units import format_bytes
from . import staging
from .fetch import Fetch
from .options import TransferOptions
from .ranges import Source
from .staging import WithoutReaders

# Makes room for a folder of so many bytes, of which so many are still missing.
MakeRoom = Callable[[int, int], None]

SLACK_BYTES = 16 << 20  # the file system's own needs, and the manifest


class DownloadPlan(NamedTuple):
    """What a download does.

    `fetch` are the members to fetch. With `extend` they are added to the folder that is there;
    otherwise a whole folder is put in place, and with `replace` that of another zip is replaced.
    `held` are the names of all members that the folder will hold.
    """

    fetch: list[Member]
    extend: bool
    replace: bool
    held: set[str]


def download(
    live: Live,
    destination: Path,
    url: Callable[[], str],
    selection: Selection = EVERYTHING,
    options: TransferOptions | None = None,
    *,
    without_readers: WithoutReaders | None = None,
    make_room: MakeRoom | None = None,
) -> None:
    """Download a dataset, or the selected part of it, into the folder `destination`.

    Afterwards the folder holds the members and `manifest.json` (the ready marker). A folder that
    holds other shards of the same zip is extended; one of another zip is replaced once everything
    has arrived. Bytes are verified (size, CRC-32, BLAKE3) while they are written, and wrong ones
    are fetched once more. A broken connection is resumed where it broke.

    Args:
        live: the ready marker.
        destination: the folder; need not exist.
        url: returns a fresh presigned URL of `live.zip_key`.
        selection: the wanted part.
        options: how to transfer.
        without_readers: given for a folder of the cache. It is entered while existing files are
            removed, and raises UsageError while they are read. With it, a damaged dataset at the
            destination is repaired.
        make_room: called before bytes are fetched.

    Raises:
        UsageError: the selection or the destination is invalid.
        NoSpace: the disk cannot hold it.
        DatasetReplaced: the zip was retired; read the ready marker again.
        IntegrityError: bytes were wrong twice, or the marker is damaged.
        AccessDenied, StoreUnreachable, StoreError.
    """
    check_members(live)
    wanted = select(live, selection)
    with staging.staging_folder(destination, live.zip_etag) as folder:
        if without_readers is not None and _is_damaged(destination):
            with without_readers():
                staging.adopt(folder, destination, _names(live.members))
        transfer = _Transfer(live, destination, folder, url, options or TransferOptions())
        transfer.complete(wanted, without_readers, make_room)


def repair(
    live: Live,
    destination: Path,
    url: Callable[[], str],
    options: TransferOptions | None = None,
    *,
    without_readers: WithoutReaders,
) -> None:
    """Repair a folder whose manifest.json or partial.json is damaged.

    Keeps the shards that are there and intact, fetches the damaged ones and every member that is
    no shard. Arguments and errors are those of `download`.
    """
    check_members(live)
    wanted = [m for m in live.members if not m.split or (destination / m.name).exists()]
    with staging.staging_folder(destination, live.zip_etag) as folder:
        with without_readers():
            staging.adopt(folder, destination, _names(live.members))
        transfer = _Transfer(live, destination, folder, url, options or TransferOptions())
        transfer.complete(wanted, without_readers)


def refetch(
    live: Live,
    destination: Path,
    names: Collection[str],
    url: Callable[[], str],
    options: TransferOptions | None = None,
) -> None:
    """Fetch the members `names` of a folder again, and replace the damaged files by them.

    Arguments and errors are those of `download`.
    """
    check_members(live)
    members = [member for member in live.members if member.name in names]
    with staging.staging_folder(destination, live.zip_etag) as folder:
        check_space(destination.parent, _missing_bytes(members, folder))
        transfer = _Transfer(live, destination, folder, url, options or TransferOptions())
        transfer.fetch(members)
        with Directory(destination) as existing:
            staging.move_into(folder, existing, [member.name for member in members])


def plan_download(
    live: Live, wanted: Sequence[Member], existing: tuple[Live, set[str]] | None
) -> DownloadPlan:
    """Decide what to fetch, given what is at the destination: its marker and the names it holds.

    Pure. Files of another zip are never mixed in, even if their digests are equal: the folder's
    manifest describes one zip.
    """
    names = {member.name for member in wanted}
    if existing is None or _zip_of(existing[0]) != _zip_of(live):
        return DownloadPlan(list(wanted), extend=False, replace=existing is not None, held=names)
    held = existing[1]
    missing = [member for member in wanted if member.name not in held]
    return DownloadPlan(missing, extend=True, replace=False, held=held | names)


def check_space(folder: Path, needed_bytes: int, freed_bytes: int = 0) -> None:
    """Raise NoSpace unless the folder's file system has room for `needed_bytes` and a reserve,
    once `freed_bytes` have been freed."""
    status = os.statvfs(folder)
    available = status.f_bavail * status.f_frsize
    if needed_bytes + SLACK_BYTES > available + freed_bytes:
        raise NoSpace(
            f"{folder}: {format_bytes(needed_bytes)} and a reserve of {format_bytes(SLACK_BYTES)} "
            f"are needed, {format_bytes(available)} are free; remove old datasets "
            "(`dscache cache prune`), get fewer splits or shards, or set DSCACHE_HOME to a larger "
            "disk"
        )


class _Transfer:
    """One dataset on its way from the store, through a staging folder, to its destination."""

    def __init__(
        self,
        live: Live,
        destination: Path,
        folder: Directory,
        url: Callable[[], str],
        options: TransferOptions,
    ) -> None:
        self._live, self._destination, self._folder = live, destination, folder
        self._source = Source(url, name=live.zip_key, etag=live.zip_etag, size=live.zip_size)
        self._options = options

    def fetch(self, members: Sequence[Member]) -> None:
        """Fetch members into the staging folder."""
        Fetch(self._source, members, self._folder, self._options).run()

    def complete(
        self,
        wanted: Sequence[Member],
        without_readers: WithoutReaders | None,
        make_room: MakeRoom | None = None,
    ) -> None:
        """Fetch what is missing of the `wanted` members, and put it in place."""
        live, fetched = self._live, set[str]()
        while True:  # again when another machine, whose locks are invisible here, was faster
            plan = plan_download(live, wanted, _existing(self._destination))
            if plan.replace:  # to be refused now rather than when all has arrived
                with (without_readers or nullcontext)():
                    staging.require_replaceable(self._destination)
            missing = [member for member in plan.fetch if member.name not in fetched]
            if missing:
                self._reserve(missing, plan, make_room)
                self.fetch(missing)
                fetched |= _names(missing)
                continue
            with suppress(FileExistsError):
                self._commit(plan, without_readers or nullcontext)
                if plan.extend:  # otherwise the temporary folder is the destination by now
                    for name in fetched:  # what another machine had fetched too
                        self._folder.unlink(name)
                return

    def _reserve(
        self, missing: Sequence[Member], plan: DownloadPlan, make_room: MakeRoom | None
    ) -> None:
        needed = _missing_bytes(missing, self._folder)
        if make_room is not None:
            make_room(sum(m.size for m in self._live.members if m.name in plan.held), needed)
        check_space(self._destination.parent, needed)

    def _commit(self, plan: DownloadPlan, without_readers: WithoutReaders) -> None:
        """Make what was fetched appear: a whole folder in one step; in an existing folder files
        first, then the description that they are there. Raises FileExistsError when a folder has
        appeared meanwhile."""
        folder, destination = self._folder, self._destination
        held = contents_of(self._live, plan.held)
        complete = contents.is_complete(held)
        if plan.extend:
            with Directory(destination) as existing:
                staging.move_into(folder, existing, [member.name for member in plan.fetch])
                if complete:
                    existing.unlink(PARTIAL)
                else:
                    existing.write(PARTIAL, contents.encode(held))
            return
        descriptions = {MANIFEST} if complete else {MANIFEST, PARTIAL}
        if not complete:
            folder.write(PARTIAL, contents.encode(held))
        folder.write(MANIFEST, manifests.encode(self._live))
        replacing = without_readers if plan.replace else None
        staging.move_whole(folder, destination, plan.held | descriptions, replacing)


def _zip_of(live: Live) -> tuple[str, str]:
    """What tells a zip from all others: those of equal bytes may have the same etag."""
    return live.zip_key, live.zip_etag


def _is_damaged(destination: Path) -> bool:
    try:
        _existing(destination)
    except (UsageError, IntegrityError):
        return True
    return False


def _existing(destination: Path) -> tuple[Live, set[str]] | None:
    """Marker and intact members (by size) of what is at the destination; None if nothing is."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return None
    try:
        live = contents.read_manifest(destination)
    except (FileNotFoundError, NotADirectoryError, IntegrityError):
        raise UsageError(
            f"{destination}: exists and is not a dataset; choose another folder, or move it away"
        ) from None
    held = contents.read_contents(destination)
    return live, held_names(live, held) - set(contents.wrong_files(destination, held))


def _names(members: Sequence[Member]) -> set[str]:
    return {member.name for member in members}


def _missing_bytes(members: Sequence[Member], folder: Directory) -> int:
    return sum(max(member.size - _present_bytes(folder, member), 0) for member in members)


def _present_bytes(folder: Directory, member: Member) -> int:
    found = folder.status(member.name) or folder.status(member.name + PART_SUFFIX)
    return found.st_size if found else 0
