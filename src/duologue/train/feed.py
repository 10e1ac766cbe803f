"""Batches made by other processes while this one trains: for a card that is faster than one core can feed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from duologue.train.state import seed_all

AHEAD = 4  # batches that each process has ready
_END = object()


class HasBatches(Protocol):
    """See `loop.Task`."""

    def batches(self, seed: int, position: int) -> Iterator[Any]: ...


class _Share(IterableDataset[Any]):
    """Every `loaders`-th of the batches that this rank trains on."""

    def __init__(self, task: HasBatches, seed: int, position: int, rank: int, count: int):
        self.task, self.seed, self.position, self.rank, self.count = task, seed, position, rank, count

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None
        mine = self.rank + self.count * worker.id
        for number, batch in enumerate(self.task.batches(self.seed, self.position)):
            if number % (self.count * worker.num_workers) == mine:
                seed_all(self.seed, self.position + number)
                yield batch() if callable(batch) else batch


def feed(task: HasBatches, *, seed: int, position: int, loaders: int, rank: int = 0, count: int = 1) -> Iterator[Any]:
    """The task's stream from `position` on, with this rank's batches made ahead of time by `loaders` processes.

    The batches are those of `task.batches`, in its order; in the place of another rank's there is None.

    Args:
        rank, count: of `count` ranks, this one trains on the positions rank, rank + count, ...; `position` is a
            multiple of count.
    """
    if not loaders:
        yield from task.batches(seed, position)
        return
    made = DataLoader(
        _Share(task, seed, position, rank, count),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=loaders,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",  # what the task has read already is shared, and nothing has to be pickled
        generator=torch.Generator(),  # so that the loop's own is not drawn from
    )
    own = iter(made)
    while True:
        for other in range(count):
            batch = next(own, _END) if other == rank else None
            if batch is _END:
                return
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch
