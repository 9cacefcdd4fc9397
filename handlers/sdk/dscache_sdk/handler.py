"""The base class of handlers, which makes builds parallel, resumable and repeatable."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from dscache_sdk import options as option_tools
from dscache_sdk.errors import (
    FeatureError,
    HandlerContractError,
    RawDataError,
    SampleError,
    machine_fault,
)
from dscache_sdk.example import Pieces, check_names, compile_pieces
from dscache_sdk.features.base import Feature
from dscache_sdk.plan import (
    Plan,
    ShardStats,
    by_split,
    make_plan,
    samples_by_bytes,
    samples_per_shard,
)
from dscache_sdk.rawdata import RawData
from dscache_sdk.records import FRAME_BYTES, Observer, RecordWriter
from dscache_sdk.samples import Sample, rng_for

if TYPE_CHECKING:
    import tensorflow as tf

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_INSTANCE_ATTRIBUTES = ("options", "raw", "config", "base_data_path")
_ESTIMATE_SAMPLES = 3
_ESTIMATE_TRIES = 12


class DatasetHandler:
    """Turns raw data into examples. Subclass it, with ``name="…"``, and write three methods.

    A subclass has a nested ``Options(msgspec.Struct, kw_only=True)``, `features`, and the methods
    `samples`, `load` and `example`. The base class uses three options if they are declared:
    ``variations_per_sample`` (default 1), ``batch_size`` (default: files are sized by bytes) and
    ``seed`` (default 0).

    Args:
        config: the options by name; every option becomes an attribute.
        base_data_path: folder with the raw data.

    Attributes:
        name: the handler's name, from the class keyword.
        features: name -> feature of every example; make it a property if it depends on options.
        options: instance of `Options`.
        raw: the raw data.
        output_dir: folder for `as_tfrecord`; by default the current directory.

    Raises:
        OptionsError: an option is unknown, has a wrong type or a wrong value.
    """

    name: ClassVar[str] = ""
    features: Mapping[str, Feature] = {}
    output_dir: str | Path = "."

    class Options(msgspec.Struct, kw_only=True):
        """No options."""

    options: Any
    raw: RawData
    base_data_path: str

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            if not _NAME.fullmatch(name):
                raise HandlerContractError(
                    f"{cls.__name__}: the name '{name}' must be lower-case letters, digits and "
                    "dashes, at most 63"
                )
            cls.name = name
        taken = [*_INSTANCE_ATTRIBUTES, *dir(cls)]
        option_tools.check_options_class(cls.Options, taken, cls.__name__)

    def __init__(self, config: dict[str, Any], base_data_path: str) -> None:
        if not self.name:
            kind = type(self).__name__
            raise HandlerContractError(f'{kind} has no name: class {kind}(…, name="…")')
        self.options = option_tools.parse_options(self.Options, config)
        self.base_data_path = str(base_data_path)
        self.raw = RawData(base_data_path)
        for field in msgspec.structs.fields(self.Options):
            setattr(self, field.name, getattr(self.options, field.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (option_tools.to_json_values(self.options), self.base_data_path)

    # To be written by the handler's author.

    def samples(self) -> Iterable[Sample]:
        """List every sample, in any order. This should be cheap: open no files."""
        raise NotImplementedError(f"{type(self).__name__} has no method samples()")

    def shared_files(self) -> Iterable[str]:
        """Paths of the raw files that affect every sample: backgrounds, annotations, …

        If one of them changes, the plan's digest changes, and an interrupted build starts over.
        Name the files of a single sample in `Sample.files`.
        """
        return ()

    def load(self, sample: Sample) -> Any:
        """Read one sample, once for all its variations. `example` must not modify the result."""
        return sample

    def example(
        self, loaded: Any, sample: Sample, rng: np.random.Generator
    ) -> dict[str, Any] | None:
        """Make one variation: a dict with exactly the names of `features`; None drops it.

        A tf.train.Example is also accepted. `rng` is seeded by the seed, the sample and the
        variation: draw fractions from it, always the same number of them, and convert them to
        pixels afterwards; then other resolutions (and other options) keep the same crops.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method example()")

    # Options.

    @classmethod
    def config_options(cls) -> dict[str, Any]:
        """All options: {option: {type, default, limits, help, neutral}}, JSON-serialisable."""
        return option_tools.describe_options(cls.Options)

    @classmethod
    def options_schema(cls) -> dict[str, Any]:
        """The options as a self-contained JSON Schema."""
        return option_tools.schema_of(cls.Options)

    @classmethod
    def resolve(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The checked config with defaults added and neutral options removed.

        Resolving the result again does not change it. Raises OptionsError.
        """
        options = option_tools.parse_options(cls.Options, config)
        neutral = option_tools.neutral_names(cls.Options)
        values = option_tools.to_json_values(options)
        return {name: value for name, value in values.items() if name not in neutral}

    # Building.

    @property
    def _variations(self) -> int:
        return int(getattr(self.options, "variations_per_sample", 1))

    @cached_property
    def _encode(self) -> Callable[[Mapping[str, Any]], Pieces]:
        return compile_pieces(self._features)

    @cached_property
    def _features(self) -> dict[str, Feature]:
        features = dict(self.features)
        if not features:
            raise HandlerContractError(f"{type(self).__name__} declares no features")
        return features

    def _check_features(self) -> None:
        """Make the encoder now: an error in it is not a sample's fault."""
        _ = self._encode

    def plan(self, dataset: str | None = None) -> Plan:
        """Decide which samples go into which file.

        Args:
            dataset: dataset name for the file names; the handler's name by default.

        Raises:
            RawDataError: there are no samples.
            HandlerContractError: `samples` yielded something other than distinct samples.
        """
        self._check_features()
        groups = by_split(self.samples())
        if not groups:
            patterns = ", ".join(self.raw.patterns)
            matching = f" that matches {patterns}" if patterns else ""
            raise RawDataError(f"no samples: there is no file in {self.raw.root}{matching}")
        return make_plan(
            dataset or self.name,
            groups,
            self._variations,
            self._divide(groups),
            self.raw.stat,
            self.shared_files(),
            self.resolve(option_tools.to_json_values(self.options)),
        )

    def _divide(self, groups: dict[str, list[Sample]]) -> Callable[[int], Sequence[int]]:
        batch_size = getattr(self.options, "batch_size", None)
        variations = self._variations
        if batch_size is not None:
            return lambda count: samples_per_shard(count, variations, int(batch_size))
        first = [sample for members in groups.values() for sample in members][:_ESTIMATE_TRIES]
        sample_bytes = self._estimate_bytes(first)
        return lambda count: samples_by_bytes(count, sample_bytes)

    def _estimate_bytes(self, candidates: list[Sample]) -> float:
        """Bytes per sample with its variations, measured on the first readable samples.

        Samples that are unreadable or do not fit into memory are skipped here: the build reports
        them with their ids.
        """
        sizes: list[int] = []
        for sample in candidates:
            try:
                records = list(self._records(sample, variations=1))
            except (SampleError, MemoryError):
                continue
            sizes.append(sum(sum(map(len, record)) + FRAME_BYTES for record in records))
            if len(sizes) == _ESTIMATE_SAMPLES:
                break
        return self._variations * sum(sizes) / len(sizes) if sizes else 1.0

    def write_shard(
        self,
        plan: Plan,
        index: int,
        path: str | Path,
        *,
        observers: Sequence[Observer] = (),
        on_sample: Callable[[str], object] | None = None,
        bad: Callable[[SampleError], object] | None = None,
        variations: int | None = None,
    ) -> ShardStats:
        """Write one file of the plan: the same bytes on every machine, in any order.

        Args:
            plan: from `plan`.
            index: of the file in `plan.shards`.
            path: the file; removed if writing fails.
            observers: called with each chunk after it is written, in order.
            on_sample: called with each sample's id before it is loaded.
            bad: called with the error of a sample that fails, all of whose examples are then left
                out; without it the first error ends the file.
            variations: write only the first variations of each sample, for a preview.

        Raises:
            SampleError: a sample failed, and `bad` is None.
            MemoryError, OSError: the file cannot be written, or a sample failed through a fault of
                the machine (`machine_fault`), with or without `bad`.
        """
        self._check_features()
        count = self._variations if variations is None else min(variations, self._variations)
        with RecordWriter(path, observers) as writer:
            for number in plan.shards[index].samples:
                sample = plan.samples[number]
                if on_sample is not None:
                    on_sample(sample.id)
                for record in self._kept(sample, count, bad):
                    writer.write(*record)
        return ShardStats(writer.records, writer.bytes)

    def _kept(
        self, sample: Sample, variations: int, bad: Callable[[SampleError], object] | None
    ) -> Iterable[Pieces]:
        records = self._records(sample, variations)
        if bad is None:
            return records
        try:
            return list(records)
        except SampleError as error:
            bad(error)
            return []

    def _records(self, sample: Sample, variations: int) -> Iterator[Pieces]:
        variation: int | None = None
        seed = int(getattr(self.options, "seed", 0))
        for step in range(variations):
            # Do not yield inside the try: errors of the writer are not the sample's.
            try:
                if step == 0:
                    loaded = self.load(sample)
                variation = step
                example = self.example(loaded, sample, rng_for(seed, sample.id, step))
                record = None if example is None else self._encoded(example)
            except Exception as error:
                # Handlers may raise anything: it is this sample's failure, unless the machine
                # failed, as it would with the next sample too.
                fault = machine_fault(error)
                if fault is None:
                    raise _sample_error(sample.id, variation, error) from error
                fault.add_note(f"while working on the sample '{sample.id}'")
                raise fault  # noqa: B904  # it is the error itself, or already its cause
            if record is not None:
                yield record

    def _encoded(self, example: Any) -> Pieces:
        if hasattr(example, "SerializeToString"):
            record: bytes = example.SerializeToString(deterministic=True)
            check_names(record, self._features)
            return (record,)
        if not isinstance(example, Mapping):
            kind = type(example).__name__
            raise FeatureError(f"example() returned a {kind}; expected a dict, or None to drop it")
        return self._encode(example)

    def as_tfrecord(self) -> list[str]:
        """Write all files into `output_dir` (created if missing); return their paths."""
        plan = self.plan()
        folder = Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for shard in plan.shards:
            self.write_shard(plan, shard.index, folder / shard.name)
            paths.append(str(folder / shard.name))
        return paths

    def tf_records_mapper(self, files: Sequence[str | Path]) -> tf.data.Dataset:
        """The files as a tf.data.Dataset of decoded examples: dicts by feature name."""
        from dscache_sdk.reading import tfdata

        return tfdata(files, self._features)


def _sample_error(sample_id: str, variation: int | None, error: Exception) -> SampleError:
    text = str(error) or repr(error)
    message = text if isinstance(error, FeatureError) else f"{type(error).__name__}: {text}"
    lines = traceback.format_exception(error)
    return SampleError(sample_id, variation, message, "".join(lines))
