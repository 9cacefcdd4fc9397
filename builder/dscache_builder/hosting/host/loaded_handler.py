"""The handler that a host runs: one class, one config, one folder of raw data."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dscache_sdk.errors import HandlerContractError
from dscache_sdk.features import features_to_json
from dscache_sdk.handler import DatasetHandler
from dscache_sdk.options import refuse_unknown
from dscache_sdk.plain import is_plain, load_handler
from dscache_sdk.plan import Plan

from .failures import HostFailure, traceback_text
from .raw_revision import below, changed_files, facts_of, raw_revision, write_listing

NAMED_CHANGES = 5  # of all files that changed


class HostSettings(msgspec.Struct, kw_only=True):
    """The builder's request; sizes in bytes, times in s.

    `avoid` lists samples that killed a host while it was planning; `bad_samples` and
    `examples_done` are those of the shards that earlier hosts of this build finished.
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
    bad_samples: int = 0
    examples_done: int = 0

    @property
    def shards_dir(self) -> Path:
        """Folder for finished shards."""
        return Path(self.scratch) / "shards"


class Baseline(NamedTuple):
    """The raw data as it was planned: its revision, and a digest of the declared files' facts."""

    revision: str
    facts: str


class LoadedHandler:
    """Loads the handler once, and describes and plans it."""

    def __init__(self, settings: HostSettings) -> None:
        self.settings = settings
        self.plan: Plan | None = None
        self.baseline = Baseline("", "")
        self.cls = _load(settings.entry_point)
        self.plain = is_plain(self.cls)

    @cached_property
    def handler(self) -> DatasetHandler:
        """The instance that plans, and whose copies in forked workers write the shards."""
        handler: DatasetHandler = self.cls(self.settings.config, self.settings.raw)
        return handler

    def options(self) -> dict[str, Any]:
        """A JSON Schema, whatever the config is; for a plain handler what it says about them."""
        if not self.plain:
            schema: dict[str, Any] = self.cls.options_schema()
            return schema
        options = self.cls.config_options()
        return jsonable(options) if isinstance(options, dict) else {}

    def description(self) -> dict[str, Any]:
        """Resolved config and features. Raises OptionsError for unknown options."""
        config = self.settings.config
        if self.plain:
            options = self.cls.config_options()
            if isinstance(options, dict):
                refuse_unknown(config, options)
        else:
            config = self.cls.resolve(config)
        return {"plain": self.plain, "config": config, "features": self.features()}

    def features(self) -> dict[str, Any]:
        """The features.json document; {} for a plain handler, whose records define it."""
        if self.plain:
            return {}
        document: dict[str, Any] = json.loads(features_to_json(self.handler.features))
        return document

    def summary(self) -> dict[str, Any]:
        """Plan (once), and return the shards with their numbers of samples and examples."""
        if self.plain:
            self.baseline = Baseline(self._listed_revision(), "")
            return self._plain_summary(self.baseline.revision)
        if self.plan is None:
            revision = self._listed_revision()
            self.plan = self.handler.plan(self.settings.dataset_name)
            self.baseline = Baseline(revision, self._facts())
        shards = [
            [shard.index, shard.name, shard.split, len(shard.samples), shard.examples]
            for shard in self.plan.shards
        ]
        return {
            "digest": self.plan.digest,
            "examples": self.plan.examples,
            "shards": shards,
            "raw_revision": self.baseline.revision,
            "resumable": True,
        }

    def raw_changes(self, exact: str) -> dict[str, Any]:
        """Whether the raw data is still as it was planned, and names of files that are not.

        With `exact`, a revision, it is all of the raw data; otherwise what the samples and the
        handler declare.
        """
        raw = Path(self.settings.raw)
        try:
            revision = raw_revision(raw)
            same, changed = revision == exact, list[str]()
            if revision != self.baseline.revision:
                changed = changed_files(raw, self._listing)
            if not exact:
                changed = below(changed, set(self._declared()))
                same = not changed and self._facts() == self.baseline.facts
        except OSError as error:  # files come and go while they are listed
            same, changed = False, [str(error)]
        return {"same": same, "files": len(changed), "changed": changed[:NAMED_CHANGES]}

    @property
    def _listing(self) -> Path:
        return Path(self.settings.scratch) / "raw-files"

    def _listed_revision(self) -> str:
        return write_listing(Path(self.settings.raw), self._listing)

    def _declared(self) -> list[str]:
        """Names of the raw files that a handler's plan depends on."""
        samples = self.plan.samples if self.plan is not None else []
        own = [name for sample in samples for name in (sample.id, *sample.files)]
        return own + sorted(self.handler.shared_files())

    def _facts(self) -> str:
        """Digest of sizes and times of the declared files, which may lie behind links."""
        digest = hashlib.sha256()
        for name in self._declared():
            digest.update(facts_of(self.settings.raw, name))
        return digest.hexdigest()

    def _plain_summary(self, revision: str) -> dict[str, Any]:
        if not Path(self.settings.raw).is_dir():
            raise HostFailure("raw-data", f"{self.settings.raw}: no such folder")
        inputs = json.dumps([self.settings.config, revision], sort_keys=True)
        return {
            "digest": hashlib.sha256(inputs.encode()).hexdigest(),
            "examples": 0,
            "shards": [],
            "raw_revision": revision,
            "resumable": False,
        }


def _load(entry_point: str) -> Any:
    """Load the class. That there is none is a fault of the environment, not of its code."""
    try:
        return load_handler(entry_point)
    except HandlerContractError as error:
        trace = traceback_text(error.__cause__) if error.__cause__ else ""
        raise HostFailure("environment", str(error), trace=trace) from error


def jsonable(value: Any) -> Any:
    """A plain handler's options as JSON; types, arrays and other objects become text."""
    return json.loads(json.dumps(value, default=_as_text, skipkeys=True))


def _as_text(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


def enter_work_folder(scratch: Path) -> None:
    """Make the scratch folders and change to `work`, whose files are thrown away."""
    for name in ("work", "shards"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    os.chdir(scratch / "work")
