"""Batches of similar length from shards, the same for the same seed, and resumable in the middle of an epoch.

batches = Batches(BatchConfig(folder="data_out/mini", columns=("question_audio", "answer")))
for rows in batches:          # goes on for ever; batches.position says which batch comes next
    ...
Batches(config, position=saved)  # the same batches from there on
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from duologue.data.manifest import COLUMNS, SPLITS, Turn, read_shard, shard_paths
from duologue.errors import ConfigError, DataError

LENGTHS = ("question_seconds", "answer_seconds", "units")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Which rows, and how they are put together."""

    folder: str
    split: str = "train"
    columns: tuple[str, ...] = COLUMNS  # what is read; the rest of a row stays empty
    rows: int = 16  # most rows of a batch
    length: str = "question_seconds"  # rows of similar length come together
    padded: float = 0.0  # most rows x longest length of a batch; 0: no limit
    shortest: float = 0.0  # rows outside these lengths are left out
    longest: float = float("inf")
    shards: int = 8  # shards that are shuffled together and held in memory
    seed: int = 0
    shuffle: bool = True  # False: in the order of the shards, for evaluation

    def __post_init__(self) -> None:
        if self.length not in LENGTHS:
            raise ConfigError(f"BatchConfig.length: need one of {', '.join(LENGTHS)}, got {self.length!r}")
        if self.split not in SPLITS:
            raise ConfigError(f"BatchConfig.split: need one of {', '.join(SPLITS)}, got {self.split!r}")
        if unknown := set(self.columns) - set(COLUMNS):
            raise ConfigError(f"BatchConfig.columns: unknown {sorted(unknown)}; known: {', '.join(COLUMNS)}")
        if self.rows < 1 or self.shards < 1:
            raise ConfigError(f"BatchConfig: rows and shards must be at least 1, got {self.rows} and {self.shards}")


@dataclass(kw_only=True)
class Position:
    """Which batch comes next."""

    epoch: int = 0
    batch: int = 0


@dataclass
class _Pool:
    """Shards in memory together, and the batches made of their rows: (shard, row) pairs."""

    shards: list[int]
    batches: list[list[tuple[int, int]]] = field(default_factory=list)


class Batches:
    """Endless batches of rows; `epoch` gives one epoch.

    Args:
        rank, world: of several processes, each gets every `world`-th row of every batch.
    Raises:
        DataError: no shards, or no row of the split that is of a wanted length.
    """

    def __init__(self, config: BatchConfig, *, position: Position | None = None, rank: int = 0, world: int = 1):
        self.config, self.rank, self.world = config, rank, world
        self.position = Position(**vars(position)) if position else Position()
        self._paths = shard_paths(Path(config.folder))
        self._lengths = [self._measure(path) for path in self._paths]
        self.num_rows = sum(len(rows) for rows in self._lengths)
        if not self.num_rows:
            raise DataError(
                f"{config.folder}: no row of the split {config.split!r} between {config.shortest} and {config.longest} "
                f"of {config.length}; widen the limits or make more data"
            )

    def _measure(self, path: Path) -> list[tuple[int, float]]:
        """(row, length) of the rows of a shard that take part."""
        config, found = self.config, []
        for number, row in enumerate(read_shard(path, columns=("split", config.length))):
            value = getattr(row, config.length)
            length = float(len(value) if config.length == "units" else value)
            if row.split == config.split and config.shortest <= length <= config.longest:
                found.append((number, length))
        return found

    def __iter__(self) -> Iterator[list[Turn]]:
        while True:
            yield from self.epoch()

    def epoch(self) -> Iterator[list[Turn]]:
        """The rest of the epoch at hand; `position` moves on before a batch is given out."""
        pools = self._plan(self.position.epoch)
        total, first = sum(len(pool.batches) for pool in pools), 0
        for pool in pools:
            skip, first = max(0, self.position.batch - first), first + len(pool.batches)
            if skip >= len(pool.batches):
                continue
            rows = {shard: read_shard(self._paths[shard], columns=self.config.columns) for shard in pool.shards}
            for batch in pool.batches[skip:]:
                self._advance(total)
                yield [rows[shard][row] for shard, row in batch][self.rank :: self.world]

    def _advance(self, total: int) -> None:
        self.position.batch += 1
        if self.position.batch == total:
            self.position.epoch, self.position.batch = self.position.epoch + 1, 0

    def num_batches(self, epoch: int = 0) -> int:
        """Batches of an epoch."""
        return sum(len(pool.batches) for pool in self._plan(epoch))

    def _plan(self, epoch: int) -> list[_Pool]:
        config = self.config
        rng = np.random.default_rng([config.seed, epoch])
        order = list(rng.permutation(len(self._paths))) if config.shuffle else list(range(len(self._paths)))
        pools = []
        for start in range(0, len(order), config.shards):
            shards = [int(shard) for shard in order[start : start + config.shards]]
            items = [(shard, row, length) for shard in shards for row, length in self._lengths[shard]]
            if config.shuffle:
                # A little noise on the length, so that the same rows do not meet in every epoch.
                noise = rng.uniform(0.9, 1.1, len(items))
                ranks = np.argsort([length * noise[i] for i, (_, _, length) in enumerate(items)], kind="stable")
                items = [items[i] for i in ranks]
            batches = _cut(items, config)
            if config.shuffle:
                batches = [batches[i] for i in rng.permutation(len(batches))]
            if batches:
                pools.append(_Pool(shards, batches))
        return pools


def _cut(items: list[tuple[int, int, float]], config: BatchConfig) -> list[list[tuple[int, int]]]:
    batches: list[list[tuple[int, int]]] = []
    longest = 0.0
    for shard, row, length in items:
        longest = max(longest, length)
        full = not batches or len(batches[-1]) >= config.rows
        if full or (config.padded and (len(batches[-1]) + 1) * longest > config.padded):
            batches.append([])
            longest = length
        batches[-1].append((shard, row))
    return batches
