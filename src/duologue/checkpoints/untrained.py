"""Models of published shapes with random weights, to measure speed on; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.mimi_weights import load_mimi, save_mimi
from duologue.models.moshi.bench import step_times as moshi_step_times
from duologue.models.moshi.bench_gpu import tick_times
from duologue.models.moshi.released_config import SEVEN_B

__all__ = ["moshi_step_times", "seven_b_tick_times", "untrained_mimi"]


def seven_b_tick_times(rows: Sequence[int], *, tell: Callable[[int, int], None]) -> dict[int, float]:
    """Milliseconds of a tick of Moshi's released shape on a GPU; see `models.moshi.bench_gpu`."""
    return tick_times(SEVEN_B, rows, tell=tell)


def untrained_mimi(path: Path) -> Mimi:
    """The codec of the released shape; its weights lie at `path` in kyutai's layout. The first call writes them."""
    if not path.is_file():
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            mimi = Mimi(MimiConfig())
            for buffer in mimi.quantizer.buffers():
                if buffer.is_floating_point() and buffer.dim() > 1:
                    buffer.normal_()
        save_mimi(mimi, path)
    return load_mimi(path, MimiConfig())
