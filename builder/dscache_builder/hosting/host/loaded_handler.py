"""The handler that this host runs: one class, one config, one folder of raw data."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from dscache_sdk.features import features_to_json
from dscache_sdk.handler import DatasetHandler
from dscache_sdk.options import refuse_unknown
from dscache_sdk.plain import is_plain, load_handler
from dscache_sdk.plan import Plan

from .failures import HostFailure
from .raw_revision import raw_revision


class HostSettings(msgspec.Struct, kw_only=True):
    """What the builder wants to be run; sizes in bytes, times in s.

    `avoid` names samples that killed a host while it was planning.
    """

    entry_point: str
    dataset_name: str
    config: dict[str, Any]
    raw: str
    scratch: str
    workers: int
    memory_bytes: int | None = None
    sample_seconds: float | None = None
    max_bad_samples: int | float = 0
    avoid: list[str] = []

    @property
    def shards_dir(self) -> Path:
        """Where finished shards are put."""
        return Path(self.scratch) / "shards"


class LoadedHandler:
    """Loads the handler once and answers what the builder asks about it."""

    def __init__(self, settings: HostSettings) -> None:
        self.settings = settings
        self.plan: Plan | None = None
        self.cls = load_handler(settings.entry_point)
        self.plain = is_plain(self.cls)

    @cached_property
    def handler(self) -> DatasetHandler:
        """The instance that plans, and whose copies in forked workers write the shards."""
        made: DatasetHandler = self.cls(self.settings.config, self.settings.raw)
        return made

    def description(self) -> dict[str, Any]:
        """Options, resolved config and features; refuses options the handler does not have."""
        if self.plain:
            return self._plain_description()
        return {
            "plain": False,
            "options": self.cls.options_schema(),
            "config": self.cls.resolve(self.settings.config),
            "features": self.features(),
        }

    def _plain_description(self) -> dict[str, Any]:
        options = self.cls.config_options()
        if isinstance(options, dict):
            refuse_unknown(self.settings.config, options)
        else:
            options = {}
        return {
            "plain": True,
            "options": jsonable(options),
            "config": self.settings.config,
            "features": {},
        }

    def features(self) -> dict[str, Any]:
        """The features.json document ({} for a plain handler: known once records are)."""
        if self.plain:
            return {}
        found: dict[str, Any] = json.loads(features_to_json(self.handler.features))
        return found

    def summary(self) -> dict[str, Any]:
        """Plan (once) and say how many examples go into which shards."""
        revision = raw_revision(Path(self.settings.raw))
        if self.plain:
            return self._plain_summary(revision)
        if self.plan is None:
            self.plan = self.handler.plan(self.settings.dataset_name)
        shards = [
            [shard.index, shard.name, shard.split, len(shard.samples), shard.examples]
            for shard in self.plan.shards
        ]
        return {
            "digest": self.plan.digest,
            "examples": self.plan.examples,
            "shards": shards,
            "raw_revision": revision,
            "resumable": True,
        }

    def _plain_summary(self, revision: str) -> dict[str, Any]:
        if not Path(self.settings.raw).is_dir():
            raise HostFailure("raw-data", f"{self.settings.raw}: there is no such folder")
        told = json.dumps([self.settings.config, revision], sort_keys=True)
        return {
            "digest": hashlib.sha256(told.encode()).hexdigest(),
            "examples": 0,
            "shards": [],
            "raw_revision": revision,
            "resumable": False,
        }


def jsonable(value: Any) -> Any:
    """A plain handler's answer as JSON: what JSON cannot say (types, arrays) becomes text."""
    return json.loads(json.dumps(value, default=_as_text, skipkeys=True))


def _as_text(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


def enter_work_folder(scratch: Path) -> None:
    """Make the scratch folders and go to the handler's own: what it leaves there is thrown away."""
    for name in ("work", "shards"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    os.chdir(scratch / "work")
