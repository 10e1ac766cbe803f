"""Models of published shapes with random weights, to measure speed on; nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import torch

from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.mimi_weights import load_mimi, save_mimi
from duologue.models.moshi.bench import step_times as moshi_step_times

__all__ = ["moshi_step_times", "untrained_mimi"]


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
