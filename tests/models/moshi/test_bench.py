import sys

import torch
from tiny_moshi import TINY

from duologue.models.moshi import bench

KINDS = {"float32", "float32 moshi", "bfloat16", "bfloat16 moshi", "int8", "int4"}


def test_every_kind_of_weights_is_timed_beside_theirs(monkeypatch):
    monkeypatch.setattr(bench, "SHAPE", TINY)
    threads, told = torch.get_num_threads(), []
    for rows in (1, 3):
        times = bench.step_times(rows, past=5, steps=2, threads=1, tell=lambda done, count: told.append((done, count)))
        assert times.keys() == KINDS and all(len(one) == 2 and min(one) > 0 for one in times.values())
    assert told[6] == (6, 6) and told[-1] == (24, 24) and torch.get_num_threads() == threads


def test_without_the_package_ours_is_timed_alone(monkeypatch):
    monkeypatch.setattr(bench, "SHAPE", TINY)
    monkeypatch.setitem(sys.modules, "moshi.models.lm", None)
    assert bench.step_times(1, past=5, steps=1, threads=1).keys() == {"float32", "bfloat16", "int8", "int4"}
