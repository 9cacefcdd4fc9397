"""A worker process: writes shards one after the other until its parent closes the pipe."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dscache_sdk.errors import SampleError
from dscache_sdk.features import features_to_json, infer_features
from dscache_sdk.plain import plain_splits, run_plain
from dscache_sdk.plan import ShardStats
from dscache_sdk.records import RecordWriter, read_records
from dscache_sdk.tfds import shard_name

from .channel import LineReader, write_line
from .checksums import Checksums, checksums_of
from .contact_sheet import check_can_draw, draw_sheet
from .current_sample import CurrentSample
from .failures import failure_event, is_disk_full, is_out_of_memory
from .loaded_handler import LoadedHandler
from .plain_files import collect
from .plan_subsets import mixed_samples, only_samples, without
from .process import EXIT_OUT_OF_MEMORY

PREVIEW_RECORDS = 16


class ShardWorker:
    """Runs in the forked process; `current` shows the parent the sample in progress."""

    def __init__(
        self, loaded: LoadedHandler, commands: int, events: int, current: CurrentSample
    ) -> None:
        self._loaded = loaded
        self._commands = LineReader(commands)
        self._events = events
        self._current = current
        self._commands_by_name: dict[str, Callable[[dict[str, Any]], None]] = {
            "shard": self._shard,
            "plain": self._plain,
            "preview": self._preview,
        }

    def run(self) -> None:
        """Run commands until the parent closes the pipe."""
        while not self._commands.ended:
            for command in self._commands.read():
                self._do(command)

    def _do(self, command: dict[str, Any]) -> None:
        try:
            self._commands_by_name[command["do"]](command)
            self._current.rest()
            self._emit({"event": "done"})
        except MemoryError:
            os._exit(EXIT_OUT_OF_MEMORY)  # leaked memory is freed only by ending the process
        except (Exception, SystemExit) as error:  # noqa: BLE001  # edge to the handler's code
            if is_out_of_memory(error):
                os._exit(EXIT_OUT_OF_MEMORY)
            self._emit(failure_event(error))

    def _emit(self, event: dict[str, Any]) -> None:
        write_line(self._events, event)

    def _begin(self, sample: str) -> None:
        self._current.begin(sample, time.monotonic())

    def _shard(self, command: dict[str, Any]) -> None:
        plan = self._loaded.plan
        assert plan is not None  # the parent planned before it forked
        shard = plan.shards[command["index"]]
        path = self._loaded.settings.shards_dir / shard.name
        partial = path.with_name(f"{shard.name}.partial")
        sums = Checksums()
        stats: ShardStats = self._loaded.handler.write_shard(
            without(plan, shard.index, command["leave_out"]),
            shard.index,
            partial,
            observers=[sums.update],
            on_sample=self._begin,
            bad=self._bad,
        )
        self._current.rest()
        partial.replace(path)
        self._built(shard.index, shard.split, path, stats.records, sums)

    def _bad(self, error: SampleError) -> None:
        if is_out_of_memory(error) or is_disk_full(error):
            raise error  # a fault of the machine: the next sample would fail as well
        self._emit({"event": "bad", **_bad_sample(error)})

    def _built(
        self, index: int, split: str, path: Path, records: int, sums: Checksums, **more: Any
    ) -> None:
        self._emit(
            {
                "event": "built",
                "index": index,
                "name": path.name,
                "split": split,
                "size": sums.size,
                "crc32": sums.crc32,
                "digest": sums.digest,
                "records": records,
                **more,
            }
        )

    def _plain(self, _: dict[str, Any]) -> None:
        """Run a plain handler, then rename its files as TFDS expects."""
        settings = self._loaded.settings
        paths = run_plain(self._loaded.cls, settings.config, settings.raw, Path.cwd())
        splits = plain_splits(paths)
        splits.sort(key=lambda item: (item[0] != "train", item[0]))  # stable: the handler's order
        counts = {name: [split for split, _ in splits].count(name) for name, _ in splits}
        numbers: dict[str, int] = {}
        features: dict[str, Any] = {}
        for index, (split, path) in enumerate(splits):
            number = numbers[split] = numbers.get(split, -1) + 1
            name = shard_name(settings.dataset_name, split, number, counts[split])
            target = settings.shards_dir / name
            collect(path, target, scratch=Path(settings.scratch), raw=Path(settings.raw))
            features = features or self._inferred(target)
            sums, records = checksums_of(target)
            self._built(index, split, target, records, sums, features=features)

    def _inferred(self, path: Path) -> dict[str, Any]:
        """Infer features from a plain handler's first records, and keep these for the preview."""
        first = [
            record for record, _ in zip(read_records(path), range(PREVIEW_RECORDS), strict=False)
        ]
        if not first:
            return {}
        with RecordWriter(self._preview_file) as writer:
            for record in first:
                writer.write(record)
        document: dict[str, Any] = json.loads(features_to_json(infer_features(*first)))
        return document

    @property
    def _preview_file(self) -> Path:
        return Path(self._loaded.settings.scratch) / "preview.tfrecord"

    def _preview(self, command: dict[str, Any]) -> None:
        """Draw the first examples; report samples that fail, and leave them out."""
        check_can_draw()
        seconds: dict[str, float] = {}
        bad: list[dict[str, str]] = []
        if not self._loaded.plain:
            seconds, bad = self._write_first(command)
        sheet = draw_sheet(self._preview_file, self._loaded, command["examples"], command["to"])
        self._emit({"event": "previewed", "line": sheet, "seconds": seconds, "failed": bad})

    def _write_first(
        self, command: dict[str, Any]
    ) -> tuple[dict[str, float], list[dict[str, str]]]:
        plan = self._loaded.plan
        assert plan is not None  # the parent planned before it forked
        begun: list[tuple[str, float]] = []
        bad: list[dict[str, str]] = []

        def begin(sample: str) -> None:
            begun.append((sample, time.monotonic()))
            self._begin(sample)

        def failed(error: SampleError) -> None:
            if is_out_of_memory(error) or is_disk_full(error):
                raise error
            bad.append(_bad_sample(error))

        with suppress(FileNotFoundError):
            self._preview_file.unlink()
        choose = mixed_samples if command["mixed"] else only_samples
        preview_plan = choose(plan, command["samples"], command["leave_out"])
        self._loaded.handler.write_shard(
            preview_plan,
            0,
            self._preview_file,
            on_sample=begin,
            bad=failed,
            variations=-(-command["examples"] // command["samples"]),
        )
        begun.append(("", time.monotonic()))
        self._current.rest()
        pairs = itertools.pairwise(begun)
        return {sample: after - at for (sample, at), (_, after) in pairs}, bad


def _bad_sample(error: SampleError) -> dict[str, str]:
    event = failure_event(error)
    return {"sample": error.sample_id, "error": event["message"], "traceback": event["traceback"]}
