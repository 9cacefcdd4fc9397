"""From a ready marker and presigned URLs to a folder of verified files.

Nothing appears under the destination's name before all of it is there and checked; what a crashed
or interrupted download has fetched is kept in a hidden folder beside it and gone on with.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import IntegrityError, NoSpace, UsageError
from ..folder import contents
from ..folder.contents import MANIFEST, PART_SUFFIX, PARTIAL
from ..folder.selection import check_members, held_names, holding_of, select
from ..protocol import manifests
from ..protocol.manifests import Live, Member
from ..units import format_bytes
from . import staging
from .concurrency import MAX_RANGES
from .fetch import Fetch, Options, Progress
from .ranges import Source
from .staging import Alone

# Makes room for a folder of so many bytes, of which so many are missing.
Room = Callable[[int, int], None]

SLACK_BYTES = 16 << 20  # the file system's own needs, and the manifest


class Plan(NamedTuple):
    """What a download does: `fetch` these members; `extend` the folder that is there, or put a
    whole one into place, where it may `replace` that of another zip. `held` are the names of the
    members it will hold then."""

    fetch: list[Member]
    extend: bool
    replace: bool
    held: set[str]


def download(
    live: Live,
    destination: Path,
    url: Callable[[], str],
    *,
    splits: Collection[str] | None = None,
    shards: Collection[int] | None = None,
    parallel: int | None = None,
    progress: Progress | None = None,
    alone: Alone | None = None,
    room: Room | None = None,
    stall_s: float = 30.0,
    sleep: Callable[[float], object] | None = None,
    jitter: Callable[[], float] = random.random,
) -> None:
    """Download a dataset, or some splits or shards of it, into the folder `destination`.

    The folder holds the members and `manifest.json` (the ready marker) afterwards. A folder that
    holds other shards of the same zip is extended; one of another zip is replaced when all is
    there. Bytes are checked against the marker (size, CRC-32, BLAKE3) while they are written; wrong
    ones are fetched once more. A broken connection is resumed where it broke.

    `url` gives a fresh presigned URL of `live.zip_key`. `shards` are indices within a split.
    `parallel` is the number of ranges at once, 1 to 8; None starts with two and adds more while
    that helps. `progress(bytes_done, bytes_total)` is called in this thread, ten times a second.
    `alone` is given for a folder of the cache: it is entered while files that are there are taken
    away, and raises when they are read; a damaged dataset that is there is mended then.
    `room(whole, needed)` makes room for a folder of `whole` bytes, of which `needed` are missing.
    `stall_s`: after so many seconds without a chunk of 256 KiB a range is asked for again. `sleep`
    and `jitter` (numbers in [0, 1)) are for the pauses between attempts.

    Raises UsageError (split, shard or destination), NoSpace, DatasetReplaced (look at the ready
    marker again), IntegrityError, AccessDenied, StoreUnreachable, StoreError.
    """
    check_members(live)
    wanted = select(live, splits, shards)
    options = Options(_checked(parallel), progress, stall_s, sleep, jitter)
    with staging.workspace(destination, live.zip_etag) as folder:
        if alone is not None and _damaged(destination):
            with alone():
                staging.adopt(folder, destination, _names(live.members))
        _complete(live, wanted, folder, destination, _source(live, url), options, alone, room)


def mend(
    live: Live,
    destination: Path,
    url: Callable[[], str],
    *,
    alone: Alone,
    parallel: int | None = None,
    progress: Progress | None = None,
    stall_s: float = 30.0,
    sleep: Callable[[float], object] | None = None,
    jitter: Callable[[], float] = random.random,
) -> None:
    """Make a dataset of a folder whose manifest.json or partial.json is damaged: of the files that
    are there and those that are no shards; what is not as the marker says is fetched again.

    Parameters and errors are those of `download`.
    """
    check_members(live)
    wanted = [m for m in live.members if not m.split or (destination / m.name).exists()]
    options = Options(_checked(parallel), progress, stall_s, sleep, jitter)
    with staging.workspace(destination, live.zip_etag) as folder:
        with alone():
            staging.adopt(folder, destination, _names(live.members))
        _complete(live, wanted, folder, destination, _source(live, url), options, alone)


def refetch(
    live: Live,
    destination: Path,
    names: Collection[str],
    url: Callable[[], str],
    *,
    parallel: int | None = None,
    progress: Progress | None = None,
    stall_s: float = 30.0,
    sleep: Callable[[float], object] | None = None,
    jitter: Callable[[], float] = random.random,
) -> None:
    """Fetch the members `names` of a folder again and put each in place of the damaged one.

    Parameters and errors are those of `download`.
    """
    check_members(live)
    members = [member for member in live.members if member.name in names]
    options = Options(_checked(parallel), progress, stall_s, sleep, jitter)
    with staging.workspace(destination, live.zip_etag) as folder:
        check_space(destination.parent, _missing_bytes(members, folder))
        Fetch(_source(live, url), members, folder, options).run()
        staging.move_into(folder, destination, [member.name for member in members])


def decide(live: Live, wanted: Sequence[Member], existing: tuple[Live, set[str]] | None) -> Plan:
    """Decide what to fetch, given what is at the destination: its marker and the names it holds.

    Pure. Files of another zip are never mixed in, even if their digests are equal: the folder's
    manifest describes one zip.
    """
    names = {member.name for member in wanted}
    if existing is None or existing[0].zip_etag != live.zip_etag:
        return Plan(list(wanted), extend=False, replace=existing is not None, held=names)
    held = existing[1]
    missing = [member for member in wanted if member.name not in held]
    return Plan(missing, extend=True, replace=False, held=held | names)


def check_space(folder: Path, needed_bytes: int, freed_bytes: int = 0) -> None:
    """Raise NoSpace when the folder's file system has not that many bytes left (and a few), with
    those that are to be freed."""
    found = os.statvfs(folder)
    available = found.f_bavail * found.f_frsize
    if needed_bytes + SLACK_BYTES > available + freed_bytes:
        raise NoSpace(
            f"{folder}: {format_bytes(needed_bytes)} are needed, and {format_bytes(SLACK_BYTES)} "
            f"in reserve; {format_bytes(available)} are free there; remove old datasets "
            "(`dscache cache prune`), get fewer splits or shards, or set DSCACHE_HOME to a larger "
            "disk"
        )


def _complete(
    live: Live,
    wanted: Sequence[Member],
    folder: Path,
    destination: Path,
    source: Source,
    options: Options,
    alone: Alone | None,
    room: Room | None = None,
) -> None:
    """Fetch what is missing of the `wanted` into the temporary folder, and commit it."""
    fetched: set[str] = set()
    while True:  # again when another machine, whose locks we do not see, was quicker
        plan = decide(live, wanted, _existing(destination))
        if plan.replace and alone is not None:
            with alone():  # to be refused now, not when all is there
                pass
        missing = [member for member in plan.fetch if member.name not in fetched]
        if missing:
            needed = _missing_bytes(missing, folder)
            if room is not None:
                room(sum(m.size for m in live.members if m.name in plan.held), needed)
            check_space(destination.parent, needed)
            Fetch(source, missing, folder, options).run()
            fetched |= _names(missing)
            continue
        with suppress(FileExistsError):
            _commit(live, plan, folder, destination, alone or nullcontext)
            staging.drop(folder, fetched)  # what the other one had fetched as well
            return


def _damaged(destination: Path) -> bool:
    try:
        _existing(destination)
    except (UsageError, IntegrityError):
        return True
    return False


def _existing(destination: Path) -> tuple[Live, set[str]] | None:
    """Marker and member names of the dataset at the destination; None when nothing is there."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return None
    try:
        live = contents.read_manifest(destination)
    except (FileNotFoundError, NotADirectoryError, IntegrityError):
        raise UsageError(
            f"{destination}: is there already and is no dataset; choose another folder, "
            "or move it away"
        ) from None
    return live, held_names(live, contents.read(destination))


def _commit(live: Live, plan: Plan, folder: Path, destination: Path, alone: Alone) -> None:
    """Make what was fetched appear. Whole folders appear in one step; into a folder that is there
    the files come first and the word that they are there comes last. Raises FileExistsError when
    a folder has appeared meanwhile."""
    held = holding_of(live, plan.held)
    whole = contents.complete(held)
    if plan.extend:
        staging.move_into(folder, destination, [member.name for member in plan.fetch])
        if whole:
            (destination / PARTIAL).unlink(missing_ok=True)
        else:
            staging.write_file(destination / PARTIAL, contents.encode(held))
        return
    own = {MANIFEST} if whole else {MANIFEST, PARTIAL}
    if not whole:
        staging.write_file(folder / PARTIAL, contents.encode(held))
    staging.write_file(folder / MANIFEST, manifests.encode(live))
    replacing = alone if plan.replace else None
    staging.move_whole(folder, destination, plan.held | own, replacing)


def _names(members: Sequence[Member]) -> set[str]:
    return {member.name for member in members}


def _missing_bytes(members: Sequence[Member], folder: Path) -> int:
    return sum(max(member.size - _present_bytes(folder, member), 0) for member in members)


def _present_bytes(folder: Path, member: Member) -> int:
    for name in (member.name, member.name + PART_SUFFIX):
        try:
            return (folder / name).stat().st_size
        except FileNotFoundError:
            continue
    return 0


def _source(live: Live, url: Callable[[], str]) -> Source:
    return Source(url, name=live.zip_key, etag=live.zip_etag, size=live.zip_size)


def _checked(parallel: int | None) -> int | None:
    if parallel is not None and not 1 <= parallel <= MAX_RANGES:
        raise UsageError(f"parallel: {parallel} ranges at once; choose 1 to {MAX_RANGES}")
    return parallel
