"""Rows of manifest shards for the stages: one endless stream over several folders, open at any position."""

from __future__ import annotations

import datetime
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from duologue.data.batches import BatchConfig, Batches, Position
from duologue.data.manifest import Turn, read_rows
from duologue.errors import ConfigError

FIRST_DAY, DAYS = datetime.date(2025, 1, 1), 7 * 365  # days that training speaks of as today
_DAY = re.compile(r"@(\d{4}-\d\d-\d\d)$")


def stream(
    configs: Sequence[BatchConfig], *, seed: int, position: int, last: float | None = None
) -> Iterator[tuple[int, int, list[Turn]]]:
    """Endless batches, each from one folder: its position in the stream, the folder's number, the rows.

    Folders are drawn by how many batches they have.

    Args:
        position: batches already used; the stream begins there.
        last: the share of the batches that come from the last folder, however many it has.
    Raises:
        ConfigError: no folder. DataError: a folder without rows for it.
    """
    if not configs:
        raise ConfigError("rows.stream: need at least one data folder; make one with: duologue data synth")
    folders = [Batches(config) for config in configs]
    shares = np.array([folder.num_batches() for folder in folders], float)
    shares /= shares.sum()
    if last is not None and len(folders) > 1:
        shares = np.append(shares[:-1] * (1 - last) / shares[:-1].sum(), last)

    def choice(number: int) -> int:
        if len(folders) == 1:
            return 0
        return int(np.random.default_rng((seed, 1, number)).choice(len(folders), p=shares))

    used = Counter({0: position}) if len(folders) == 1 else Counter(choice(number) for number in range(position))
    for index, folder in enumerate(folders):
        _skip(folder, used[index])
    streams = [iter(folder) for folder in folders]
    while True:
        index = choice(position)
        yield position, index, next(streams[index])
        position += 1


def _skip(batches: Batches, count: int) -> None:
    epoch = 0
    while count >= (size := batches.num_batches(epoch)):
        count, epoch = count - size, epoch + 1
    batches.position = Position(epoch=epoch, batch=count)


def held_out(
    folders: Sequence[str], columns: Sequence[str], *, most: int, split: str = "dev"
) -> list[tuple[int, Turn]]:
    """The first rows of a split with their folders' numbers, about as many from each folder, `most` in all."""
    rows: list[tuple[int, Turn]] = []
    for number, folder in enumerate(folders, start=1):
        room = most * number // len(folders) - len(rows)
        if room > 0:
            found = read_rows(Path(folder), split=split, columns=columns)
            rows += [(number - 1, row) for row in itertools.islice(found, room)]
    return rows


def day_of(row_id: str) -> datetime.date | None:
    """The day that an answer was written for: ids of such rows end in @2027-05-31. None: any day will do."""
    found = _DAY.search(row_id)
    return datetime.date.fromisoformat(found.group(1)) if found else None


def any_day(rng: np.random.Generator) -> datetime.date:
    """A day for the system prompt."""
    return FIRST_DAY + datetime.timedelta(days=int(rng.integers(DAYS)))
