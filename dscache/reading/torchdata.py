"""Examples as a torch IterableDataset. The only module that imports PyTorch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.utils.data

from dscache_sdk.reading import iter_examples, shuffled

if TYPE_CHECKING:
    from .examples import Examples


MAX_WORKERS = 4096


class TorchExamples(torch.utils.data.IterableDataset):  # type: ignore[misc]  # torch may be missing
    """Decoded examples; each worker process of a DataLoader yields its own part of them."""

    def __init__(self, source: Examples, split: str | None, shuffle: int | None, seed: int) -> None:
        super().__init__()
        self._source, self._split = source, split
        self._shuffle, self._seed = shuffle, seed
        # the next epoch of each worker, in memory that they share with the process that made this:
        # a DataLoader makes new ones every epoch, or keeps them, when they see no change here
        self._epochs = torch.zeros(MAX_WORKERS, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, for its order. Without it they are counted from 0."""
        self._epochs.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        index, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        found = iter_examples(self._source.share(self._split, index, count), self._source.features)
        epoch = int(self._epochs[index])
        self._epochs[index] = epoch + 1
        if self._shuffle is None:
            return found
        return shuffled(found, self._shuffle, random.Random(f"{self._seed}/{epoch}/{index}"))


def iterable(source: Examples, split: str | None, shuffle: int | None, seed: int) -> TorchExamples:
    """See `Examples.torch`."""
    return TorchExamples(source, split, shuffle, seed)
