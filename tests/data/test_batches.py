from __future__ import annotations

import itertools

import numpy as np
import pytest

from duologue.data.batches import BatchConfig, Batches, Position
from duologue.data.manifest import Turn, shard_name, write_shard
from duologue.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for shard in range(5):
        rows = [
            Turn(
                id=f"{shard}-{n}",
                split="dev" if n == 3 else "train",
                question=f"q {n}",
                question_seconds=float(rng.uniform(1, 9)),
            )
            for n in range(21)
        ]
        write_shard(path / shard_name(shard), rows)
    return str(path)


def config(folder: str, **changes) -> BatchConfig:
    return BatchConfig(
        **({"folder": folder, "rows": 4, "shards": 2, "columns": ("question", "question_seconds")} | changes)
    )


def ids(batches) -> list[list[str]]:
    return [[row.id for row in batch] for batch in batches]


def test_an_epoch_gives_every_row_once(folder):
    seen = list(itertools.chain(*ids(Batches(config(folder)).epoch())))
    assert sorted(seen) == sorted(f"{s}-{n}" for s in range(5) for n in range(21) if n != 3)


def test_the_seed_and_the_epoch_decide_the_order(folder):
    batches = Batches(config(folder))
    first, second = ids(batches.epoch()), ids(batches.epoch())
    again = Batches(config(folder))
    assert [first, second] == [ids(again.epoch()), ids(again.epoch())]
    assert first != second
    assert first != ids(Batches(config(folder, seed=1)).epoch())


@pytest.mark.parametrize("stop", [0, 1, 7, 26, 40])
def test_a_run_goes_on_where_it_stopped(folder, stop):
    whole, part = Batches(config(folder)), Batches(config(folder))
    expected = ids(itertools.islice(whole, 60))
    begun = ids(itertools.islice(part, stop))
    rest = Batches(config(folder), position=Position(**vars(part.position)))
    assert begun + ids(itertools.islice(rest, 60 - stop)) == expected


def test_rows_of_a_batch_are_of_similar_length(folder):
    spreads = []
    for batch in Batches(config(folder, shards=5)).epoch():
        lengths = [row.question_seconds for row in batch]
        spreads.append(max(lengths) / min(lengths))
    assert np.mean(spreads) < 1.4  # of random batches: about 3


def test_a_batch_stays_within_its_padded_size(folder):
    sizes = []
    for batch in Batches(config(folder, rows=50, padded=20.0)).epoch():
        sizes.append(len(batch))
        assert len(batch) * max(row.question_seconds for row in batch) <= 20.0
    assert max(sizes) > 3


def test_lengths_outside_the_limits_are_left_out(folder):
    kept = [row.question_seconds for batch in Batches(config(folder, shortest=3, longest=6)).epoch() for row in batch]
    assert kept and min(kept) >= 3 and max(kept) <= 6


def test_processes_share_every_batch(folder):
    whole = ids(Batches(config(folder)).epoch())
    parts = [ids(Batches(config(folder), rank=rank, world=2).epoch()) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


def test_without_shuffling_the_order_is_that_of_the_shards(folder):
    batches = Batches(config(folder, split="dev", shuffle=False, rows=2))
    assert ids(batches.epoch()) == [["0-3", "1-3"], ["2-3", "3-3"], ["4-3"]]
    assert batches.num_batches() == 3


def test_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="no row of the split 'test'"):
        Batches(config(folder, split="test"))
    with pytest.raises(DataError, match="no shards"):
        Batches(config(str(tmp_path)))
    with pytest.raises(ConfigError, match="colour"):
        config(folder, columns=("colour",))
    with pytest.raises(ConfigError, match="length"):
        config(folder, length="answer")
