"""The base class of handlers: what makes builds parallel, resumable and repeatable."""

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
    `samples`, `load` and `example`. Three options are read here when it declares them:
    ``variations_per_sample`` (else 1), ``batch_size`` (else files are sized by bytes) and
    ``seed`` (else 0).

    Args:
        config: the options by name; every option becomes an attribute.
        base_data_path: folder with the raw data.

    Attributes:
        name: the handler's name, from the class keyword.
        features: name -> feature of every example; a property where it depends on options.
        options: instance of `Options`.
        raw: the raw data.
        output_dir: where `as_tfrecord` writes; the current directory unless set.

    Raises:
        OptionsError: an option is unknown, mistyped or out of its limits.
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

    # What a handler's author writes.

    def samples(self) -> Iterable[Sample]:
        """Every sample: cheap (no file is opened), in any order, JSON-able."""
        raise NotImplementedError(f"{type(self).__name__} has no method samples()")

    def shared_files(self) -> Iterable[str]:
        """Raw files that every sample hangs on, by their paths: backgrounds, annotations …

        When one of them changes, so does the plan's digest: a build that was interrupted then
        starts over. The files of single samples belong into `Sample.files`.
        """
        return ()

    def load(self, sample: Sample) -> Any:
        """Read one sample; called once for all its variations. `example` must not change it."""
        return sample

    def example(
        self, loaded: Any, sample: Sample, rng: np.random.Generator
    ) -> dict[str, Any] | None:
        """Make one variation: a dict with exactly the names of `features`; None drops it.

        A tf.train.Example is taken too. `rng` belongs to this seed, sample and variation: draw
        fractions from it, always the same number of them, and turn them into pixels afterwards;
        then other resolutions (and other options) keep the same crops.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method example()")

    # Options.

    @classmethod
    def config_options(cls) -> dict[str, Any]:
        """Every allowed option: {option: {type, default, limits, help, neutral}}, JSON-able."""
        return option_tools.describe_options(cls.Options)

    @classmethod
    def options_schema(cls) -> dict[str, Any]:
        """The options as a self-contained JSON Schema."""
        return option_tools.schema_of(cls.Options)

    @classmethod
    def resolve(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The checked config with defaults folded in and neutral options dropped.

        Resolving twice changes nothing. Raises OptionsError.
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
        """Make the encoder now: that it cannot be made is no sample's fault."""
        _ = self._encode

    def plan(self, dataset: str | None = None) -> Plan:
        """Decide which samples go into which file.

        Args:
            dataset: name in the files' names; the handler's own when not given.

        Raises:
            RawDataError: there are no samples.
            HandlerContractError: `samples` gave something else than distinct samples.
        """
        self._check_features()
        groups = by_split(self.samples())
        if not groups:
            patterns = ", ".join(self.raw.patterns)
            looked = f" that matches {patterns}" if patterns else ""
            raise RawDataError(f"no samples: there is nothing in {self.raw.root}{looked}")
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
        """Bytes per sample with its variations, measured on the first ones that can be read.

        Unreadable samples, and those too large for the memory, are no reason to fail here: the
        build reports them with their ids.
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
        """Write one file of the plan; the same bytes wherever and in whatever order.

        Args:
            plan: from `plan`.
            index: of the file in `plan.shards`.
            path: where to write; removed again when writing fails.
            observers: get each chunk written, in order.
            on_sample: called with each sample's id before it is loaded.
            bad: gets the error of a sample that fails, whose examples are then all left out;
                without it the first error ends the file.
            variations: only the first so many of each sample, for a look at the data.

        Raises:
            SampleError: a sample failed and there is no `bad`.
            MemoryError, OSError: the file cannot be written, or a sample failed for a reason that
                is the machine's (`machine_fault`), with or without `bad`.
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
            # A generator may not yield inside the try: errors of the writer are not the sample's.
            try:
                if step == 0:
                    loaded = self.load(sample)
                variation = step
                example = self.example(loaded, sample, rng_for(seed, sample.id, step))
                record = None if example is None else self._encoded(example)
            except Exception as error:
                # Handlers are anybody's code: whatever they raise is this sample's failure,
                # unless the machine failed, as it would with the next sample too.
                fault = machine_fault(error)
                if fault is None:
                    raise _sample_error(sample.id, variation, error) from error
                fault.add_note(f"while working on the sample '{sample.id}'")
                raise fault  # noqa: B904  # it is the error, or already its cause
            if record is not None:
                yield record

    def _encoded(self, example: Any) -> Pieces:
        if hasattr(example, "SerializeToString"):
            record: bytes = example.SerializeToString(deterministic=True)
            check_names(record, self._features)
            return (record,)
        if not isinstance(example, Mapping):
            kind = type(example).__name__
            raise FeatureError(f"example() gave a {kind}; expected a dict, or None to drop it")
        return self._encode(example)

    def as_tfrecord(self) -> list[str]:
        """Write all files, in this process, into `output_dir` (made if missing); return their
        paths."""
        plan = self.plan()
        folder = Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for shard in plan.shards:
            self.write_shard(plan, shard.index, folder / shard.name)
            paths.append(str(folder / shard.name))
        return paths

    def tf_records_mapper(self, files: Sequence[str | Path]) -> tf.data.Dataset:
        """The files as a tf.data.Dataset of decoded examples (dicts by feature name)."""
        from dscache_sdk.reading import tfdata

        return tfdata(files, self._features)


def _sample_error(sample_id: str, variation: int | None, error: Exception) -> SampleError:
    text = str(error) or repr(error)
    message = text if isinstance(error, FeatureError) else f"{type(error).__name__}: {text}"
    lines = traceback.format_exception(error)
    return SampleError(sample_id, variation, message, "".join(lines))
