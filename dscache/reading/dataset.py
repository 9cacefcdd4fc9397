"""A dataset folder on this machine: what `get` returns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, UsageError
from ..folder import contents, locks
from ..folder.locks import HeldLock, acquire_shared, readers_lock_of
from .examples import Examples

if TYPE_CHECKING:
    from dscache_sdk.features import Feature
    from dscache_sdk.shares import Share

    from ..protocol.manifests import Live, Member
    from ..spec import Spec

FEATURES_FILE = "features.json"


class Dataset(Examples):
    """A downloaded dataset: its path, metadata and examples.

    `os.fspath(dataset)` is the folder, which has the TFDS layout. A partial copy gives the splits
    and shards that it has. Iterating yields the examples of all splits. A folder in the local cache
    cannot be removed until this process ends or all its Dataset objects are closed.

    Everything except the path is read when it is first used.

    Args:
        path: the folder.
        lock: the lock file that protects the folder from being removed. True finds it if the folder
            is in a cache; None takes no lock, for a cache that must not be written to.

    Raises IntegrityError if the folder is not a dataset, and from any attribute or method if its
    manifest is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, lock: Path | bool | None = True) -> None:
        self.path = Path(path).absolute()
        self._lock = readers_lock_of(self.path) if lock is True else lock or None
        self._is_locked = self._lock is not None
        if self._lock is not None:
            locks.retain(self._lock)
        if not contents.usable(self.path):
            self.close()
            raise IntegrityError(
                f"{self.path}: not a dataset (its {contents.MANIFEST} is missing or incomplete); "
                "expected a folder that `dscache get` made"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "lock": self._lock if self._is_locked else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Each copy, in whatever process, holds a lock of its own until it is closed."""
        Dataset.__init__(self, **state)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {records}" for name, records in self.info["held"].items())
        return f"Dataset({str(self.path)!r}, {splits})"

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def key(self) -> str:
        """The key of the resolved spec, which includes the handler's defaults."""
        return self.spec.key

    @property
    def spec(self) -> Spec:
        """The resolved spec."""
        return self._live.spec

    @cached_property
    def _live(self) -> Live:
        return contents.read_manifest(self.path)

    @cached_property
    def _held(self) -> set[str]:
        from ..folder.contents import held_names

        return held_names(self._live, contents.read_contents(self.path))

    @cached_property
    def info(self) -> dict[str, Any]:
        """Facts about the dataset, as a JSON document:

        `splits`: number of records per split of the whole dataset; `held`: the same for the files
        in this folder (fewer in a partial copy); `bytes`: size of these files; `features`: as in
        features.json; `raw_revision`: revision of the raw data; `bad_samples`: the samples that
        were skipped, each with `sample` and `error` (only the first 1,000 have one);
        `more_bad_samples`: number of skipped samples that are not listed; `repeatable`: whether a
        rebuild gives the same bytes; `built_at`: Unix time.
        """
        live = self._live
        members = [member for member in live.members if member.name in self._held]
        held: dict[str, int] = {}
        for member in members:
            if member.split:
                held[member.split] = held.get(member.split, 0) + member.records
        return {
            "splits": live.splits,
            "held": held,
            "bytes": sum(member.size for member in members),
            "features": live.features,
            "raw_revision": live.raw_revision,
            "bad_samples": [{"sample": bad.sample, "error": bad.error} for bad in live.bad_samples],
            "more_bad_samples": live.more_bad_samples,
            "repeatable": live.repeatable,
            "built_at": live.timings.finished_at,
        }

    @cached_property
    def features(self) -> Mapping[str, Feature]:
        """The features of every example, by name. Raises dscache_sdk.FeatureError."""
        from dscache_sdk.features import features_from_json

        path = self.path / FEATURES_FILE
        try:
            return features_from_json(path.read_bytes())
        except FileNotFoundError:
            if not self._live.features:
                raise IntegrityError(
                    f"{path} is missing; remove the folder and get the dataset again"
                ) from None
            return features_from_json(json.dumps(self._live.features))

    def files(self, split: str | None = None) -> list[str]:
        """Return the paths of the record files of a split (None: of all splits), in order.

        Raises UsageError if the split does not exist or is not in this partial copy.
        """
        return [str(self.path / member.name) for member in self._shards(split)]

    def _files_for_worker(self, split: str | None = None, index: int = 0, count: int = 1) -> Share:
        from dscache_sdk.shares import share_of

        return share_of(self.files(split), index, count)

    def hold(self) -> HeldLock:
        """Take another lock against removal, for a `with` block or an explicit `release`."""
        return HeldLock(None) if self._lock is None else acquire_shared(self._lock)

    def close(self) -> None:
        """Allow the folder to be removed, once all its Dataset objects in this process are closed.

        Closing twice is fine.
        """
        was_locked, self._is_locked = self._is_locked, False
        if was_locked and self._lock is not None:
            locks.release(self._lock)

    def _shards(self, split: str | None) -> list[Member]:
        splits = self._live.splits
        if split is not None and split not in splits:
            available = ", ".join(sorted(splits)) or "none"
            raise UsageError(
                f"no split {split!r} in {self._live.spec.dataset_name}; available: {available}"
            )
        shards = [
            shard
            for shard in self._live.shards
            if shard.name in self._held and split in (None, shard.split)
        ]
        if split is not None and not shards:
            raise UsageError(
                f"split {split!r} is not in this partial copy ({self.path}); "
                "get the dataset with that split"
            )
        return shards
