"""The order of training rows: shuffled anew each epoch, fixed by the seed, and open at any position."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from duologue.errors import DataError


def indices(count: int, *, batch: int, seed: int, position: int) -> Iterator[list[int]]:
    """Endless lists of `batch` row numbers below `count`; each row once an epoch, the rest of an epoch is left out.

    Args:
        position: micro-batches already used; the stream begins there at once, whatever the number.
    Raises:
        DataError: fewer rows than a batch has.
    """
    if count < batch:
        raise DataError(f"need at least {batch} rows for one batch, have {count}. Lower the batch size or add data.")
    each = count // batch
    while True:
        epoch, place = divmod(position, each)
        rows = np.random.default_rng((seed, epoch)).permutation(count)
        for begin in range(place * batch, each * batch, batch):
            yield rows[begin : begin + batch].tolist()
            position += 1
