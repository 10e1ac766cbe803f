import itertools

import pytest

from duologue.errors import DataError
from duologue.train.order import indices


def take(count, **where):
    return list(itertools.islice(indices(11, batch=3, **where), count))


def test_the_stream_opens_at_any_position():
    whole = take(10, seed=1, position=0)
    for position in range(10):
        assert take(10 - position, seed=1, position=position) == whole[position:]


def test_each_epoch_has_every_row_at_most_once_in_an_order_of_its_own():
    batches = take(6, seed=1, position=0)
    epochs = [list(itertools.chain(*batches[:3])), list(itertools.chain(*batches[3:]))]
    assert all(len(set(rows)) == 9 and max(rows) < 11 for rows in epochs)
    assert epochs[0] != epochs[1] and batches != take(6, seed=2, position=0)


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="at least 4 rows"):
        next(indices(3, batch=4, seed=0, position=0))
