"""Read the examples of a dataset or of one worker's part of it."""

from __future__ import annotations

import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import DscacheError, UsageError

if TYPE_CHECKING:
    import tensorflow as tf
    import torch.utils.data

    from dscache_sdk.features import Feature
    from dscache_sdk.shares import Share

    from ..spec import Spec


class Examples(ABC):
    """A source of examples. Iterating yields the examples of all splits."""

    @property
    @abstractmethod
    def features(self) -> Mapping[str, Feature]:
        """The features of every example, by name."""

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """The resolved spec."""

    @abstractmethod
    def _files_for_worker(self, split: str | None = None, index: int = 0, count: int = 1) -> Share:
        """Return the files (and the share of records) that worker `index` of `count` reads.

        Raises UsageError for an invalid split or worker.
        """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.examples()

    def shard(self, index: int, count: int) -> Portion:
        """Return the part of worker `index` (from 0) of `count`. Parts are disjoint and complete.

        Every worker gets the same number of record files. Of the remaining files (all of them, if
        there are fewer files than workers) each worker reads every `count`-th example. So the
        numbers of examples differ only as much as the sizes of the files do. Raises UsageError.
        """
        return Portion(self, index, count)

    def examples(
        self, split: str | None = None, *, shuffle: int | None = None, seed: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the examples of a split (None: of all splits), decoded to numpy.

        Images are uint8 [h, w, c], text is str, boxes are float32 [n, 4]. Needs no TensorFlow.

        Args:
            split: the split.
            shuffle: size of the shuffle buffer, in decoded examples; None keeps the order.
            seed: the same seed gives the same order.

        Raises UsageError immediately, and dscache_sdk.RecordError during iteration if a file is
        damaged.
        """
        from dscache_sdk.reading import iter_examples, shuffled

        _check_count("shuffle", shuffle)
        examples = iter_examples(self._files_for_worker(split), self.features)
        return examples if shuffle is None else shuffled(examples, shuffle, random.Random(seed))

    def tfdata(
        self,
        split: str | None = None,
        batch_size: int | None = None,
        shuffle: int | None = None,
        decode: bool = True,
        seed: int | None = None,
        handler: bool = True,
    ) -> tf.data.Dataset:
        """Return a tf.data.Dataset of dicts, one epoch long.

        If the handler's package is installed at the dataset's version and has its own
        `tf_records_mapper`, that mapper makes the elements.

        Args:
            split: the split; None means all.
            batch_size: number of examples in a batch, whose images must have one size; None makes
                no batches.
            shuffle: size of the shuffle buffer, in records; None keeps the order.
            decode: False leaves images encoded as JPEG or PNG, and does not use the handler.
            seed: the same seed gives the same order, which differs between epochs.
            handler: False never uses the handler's mapper.

        Raises UsageError for an invalid split or a number below 1, DscacheError if TensorFlow is
        not installed.
        """
        _check_count("batch_size", batch_size)
        _check_count("shuffle", shuffle)
        share = self._files_for_worker(split)
        try:
            from dscache_sdk.reading import tfdata

            from .handler_mapper import installed_handler, mapped_dataset

            custom = installed_handler(self.spec) if handler and decode else None
            if custom is not None:
                return mapped_dataset(custom, share, batch_size, shuffle, seed)
            return tfdata(share, self.features, batch_size, shuffle, decode, seed)
        except ModuleNotFoundError as error:
            raise _missing(error, "tensorflow", "tf", "tfdata() needs TensorFlow") from error

    def torch(
        self, split: str | None = None, *, shuffle: int | None = None, seed: int = 0
    ) -> torch.utils.data.IterableDataset[dict[str, Any]]:
        """Return a torch IterableDataset of the examples that `examples` yields, for a DataLoader.

        The DataLoader's worker processes divide the examples among themselves. Several machines or
        GPUs use `shard(rank, world_size).torch(…)`, all with the same `num_workers`.

        Args:
            split: the split; None means all.
            shuffle: size of the shuffle buffer, in decoded examples; None keeps the order.
            seed: the order depends on it and on the epoch (see `TorchExamples.set_epoch`).

        Raises UsageError for an invalid split or a number below 1, DscacheError if PyTorch is not
        installed.
        """
        _check_count("shuffle", shuffle)
        self._files_for_worker(split)  # raises UsageError here instead of in a worker
        try:
            from .torchdata import TorchExamples
        except ModuleNotFoundError as error:
            raise _missing(error, "torch", "torch", "torch() needs PyTorch") from error
        return TorchExamples(functools.partial(self._read_as_worker, split), shuffle, seed)

    def _read_as_worker(
        self, split: str | None, index: int, count: int
    ) -> Iterator[dict[str, Any]]:
        from dscache_sdk.reading import iter_examples

        return iter_examples(self._files_for_worker(split, index, count), self.features)


class Portion(Examples):
    """One worker's part of a dataset; reads like the dataset itself."""

    def __init__(self, whole: Examples, index: int, count: int) -> None:
        if not 0 <= index < count:
            raise UsageError(
                f"worker {index} of {count}: workers are counted from 0 to {max(count, 1) - 1}"
            )
        self._whole, self._index, self._count = whole, index, count

    def __repr__(self) -> str:
        return f"{self._whole!r}.shard({self._index}, {self._count})"

    @property
    def features(self) -> Mapping[str, Feature]:
        return self._whole.features

    @property
    def spec(self) -> Spec:
        return self._whole.spec

    def _files_for_worker(self, split: str | None = None, index: int = 0, count: int = 1) -> Share:
        # nested workers are numbered consecutively: those of worker 0, then those of worker 1, …
        return self._whole._files_for_worker(
            split, self._index * count + index, self._count * count
        )


def _check_count(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{name}={value}: expected a number of at least 1, or None")


def _missing(
    error: ModuleNotFoundError, module: str, extra: str, problem: str
) -> ModuleNotFoundError | DscacheError:
    if (error.name or "").partition(".")[0] != module:
        return error
    return DscacheError(
        f"{problem}, which is not installed: `pip install dscache[{extra}]`; "
        "examples() yields the same examples as numpy arrays without it"
    )
