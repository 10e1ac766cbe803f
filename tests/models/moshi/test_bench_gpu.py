"""The measurement for a GPU, on a small shape where there is none."""

from __future__ import annotations

import torch
from tiny_duplex import CODEC, RAW

from duologue.models.moshi.bench_gpu import tick_times


def test_ticks_of_ever_more_rows_are_timed():
    told = []
    times = tick_times(
        {**RAW, "context": 60},
        (1, 3),
        codec=CODEC,
        device="cpu",
        past=10,
        ticks=2,
        tell=lambda done, count: told.append((done, count)),
    )
    assert list(times) == [1, 3] and min(times.values()) > 0
    assert told == [(0, 2), (1, 2), (2, 2)] and torch.get_default_dtype() == torch.float32
