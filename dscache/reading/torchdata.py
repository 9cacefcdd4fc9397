"""Wrap examples as a torch IterableDataset. The only module that imports PyTorch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils.data

from dscache_sdk.reading import shuffled

MAX_WORKERS = 4096


class TorchExamples(torch.utils.data.IterableDataset):  # type: ignore[misc]  # torch may be missing
    """Decoded examples; each worker process of a DataLoader yields its own part of them.

    `read(index, count)` yields the part of worker `index` of `count`; it must be picklable.
    """

    def __init__(
        self,
        read: Callable[[int, int], Iterator[dict[str, Any]]],
        shuffle: int | None,
        seed: int,
    ) -> None:
        super().__init__()
        self._read, self._shuffle, self._seed = read, shuffle, seed
        # The next epoch of each worker, in memory shared with the process that created this. A
        # DataLoader starts new workers in each epoch, which would restart a count of their own, or
        # keeps them, and then they see no attribute that is changed here.
        self._epochs = torch.zeros(MAX_WORKERS, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch, which determines the order. By default epochs are counted from 0."""
        self._epochs.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        index, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        examples = self._read(index, count)
        epoch = int(self._epochs[index])
        self._epochs[index] = epoch + 1
        if self._shuffle is None:
            return examples
        return shuffled(examples, self._shuffle, random.Random(f"{self._seed}/{epoch}/{index}"))
