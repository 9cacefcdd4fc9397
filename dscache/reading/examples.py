"""Read the examples of a dataset, or of one worker's part of it: numpy, tf.data, PyTorch."""

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
    """What can be read. Iterating yields the examples of all splits."""

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
        """The files (and records) that worker `index` of `count` reads here.

        Raises UsageError for the split or the worker.
        """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.examples()

    def shard(self, index: int, count: int) -> Portion:
        """What worker `index` (from 0) of `count` reads; disjoint, and together complete.

        Every worker gets equally many record files; of the files that are left over, and of all
        when there are fewer files than workers, each reads every `count`-th example. So all have
        the same number of examples, give or take one file's difference in size. Raises UsageError.
        """
        return Portion(self, index, count)

    def examples(
        self, split: str | None = None, *, shuffle: int | None = None, seed: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """The examples of a split (None: of all), decoded to numpy, without TensorFlow: pictures as
        uint8 [h, w, c], text as str, boxes as float32 [n, 4].

        `shuffle` is the number of examples held back for it (decoded, so in memory); the same
        `seed` gives the same order. Raises UsageError at once; dscache_sdk.RecordError when a
        damaged file is met.
        """
        from dscache_sdk.reading import iter_examples, shuffled

        _check_count("shuffle", shuffle)
        found = iter_examples(self._files_for_worker(split), self.features)
        return found if shuffle is None else shuffled(found, shuffle, random.Random(seed))

    def tfdata(
        self,
        split: str | None = None,
        batch_size: int | None = None,
        shuffle: int | None = None,
        decode: bool = True,
        seed: int | None = None,
        handler: bool = True,
    ) -> tf.data.Dataset:
        """A tf.data.Dataset of dicts, one epoch; batches need pictures of one size.

        Where the handler's package is installed at the version of the dataset and has a
        `tf_records_mapper` of its own, that decides what the elements are.

        Args:
            split: None gives all of them.
            batch_size: examples in an element; None gives single ones.
            shuffle: the number of records held back for shuffling; None keeps the order.
            decode: False leaves pictures as JPEG or PNG (and the handler out of it).
            seed: the same one gives the same order, a new one in each epoch.
            handler: False never uses the handler's own mapper.

        Raises UsageError for the split or a number below 1, DscacheError when TensorFlow is not
        installed.
        """
        _check_count("batch_size", batch_size)
        _check_count("shuffle", shuffle)
        share = self._files_for_worker(split)
        try:
            from dscache_sdk.reading import tfdata

            from .handler_mapper import installed_handler, mapped_dataset

            own = installed_handler(self.spec) if handler and decode else None
            if own is not None:
                return mapped_dataset(own, share, batch_size, shuffle, seed)
            return tfdata(share, self.features, batch_size, shuffle, decode, seed)
        except ModuleNotFoundError as error:
            raise _missing(error, "tensorflow", "tf", "tfdata() needs TensorFlow") from error

    def torch(
        self, split: str | None = None, *, shuffle: int | None = None, seed: int = 0
    ) -> torch.utils.data.IterableDataset[dict[str, Any]]:
        """A torch IterableDataset of the same examples as `examples`, for a DataLoader.

        Its worker processes divide the examples among themselves; several machines or GPUs take
        `shard(rank, world_size).torch(…)`, all with the same `num_workers`. `shuffle` as in
        `examples`; epochs differ, and follow from `seed` (see `TorchExamples.set_epoch`).

        Raises UsageError for the split or a number below 1, DscacheError when PyTorch is not
        installed.
        """
        _check_count("shuffle", shuffle)
        self._files_for_worker(split)  # to raise UsageError now rather than in a worker
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
        # the workers of this worker: numbers of one row, in which ours are next to each other
        return self._whole._files_for_worker(
            split, self._index * count + index, self._count * count
        )


def _check_count(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{name}={value}: expected a number of at least 1, or None")


def _missing(
    error: ModuleNotFoundError, module: str, extra: str, what: str
) -> ModuleNotFoundError | DscacheError:
    if (error.name or "").partition(".")[0] != module:
        return error
    return DscacheError(
        f"{what}, which is not installed: `pip install dscache[{extra}]`; "
        "examples() gives the same as numpy without it"
    )
