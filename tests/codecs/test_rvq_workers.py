"""Two processes over gloo that train one quantiser, against one process with both batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from duologue.codecs.rvq import QuantizerConfig, SplitQuantizer

CONFIG = QuantizerConfig(dim=4, code_dim=4, codebook_size=8, codebooks=3, decay=0.9, quantize_rate=1.0)
STEPS, ROWS = 12, 4


def batch(step: int) -> Tensor:
    return torch.randn(ROWS, 16, 4, generator=torch.Generator().manual_seed(step))


def begun() -> SplitQuantizer:
    """A quantiser whose codebooks all hold something, none to be revived."""
    torch.manual_seed(0)
    quantizer = SplitQuantizer(CONFIG).train()
    for _ in range(CONFIG.codebooks):
        quantizer(torch.randn(64, 16, 4), CONFIG.codebooks)
    for name, buffer in quantizer.named_buffers():
        if name.endswith("usage"):
            buffer.clamp_(min=float(buffer.mean()))
    return quantizer


def learnt(quantizer: SplitQuantizer, rows: slice, *, steps: int) -> dict[str, Tensor]:
    for step in range(steps):
        quantizer(batch(step)[rows], CONFIG.codebooks)
    return dict(quantizer.named_buffers())


def two(out: Path, case: str) -> list[dict[str, Tensor]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(out), case], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_learn_what_one_does_from_both_batches(tmp_path):
    alone = learnt(begun(), slice(None), steps=STEPS)
    for together in two(tmp_path, "begun"):
        for name, buffer in alone.items():
            torch.testing.assert_close(together[name], buffer, rtol=1e-4, atol=1e-5)


def test_two_processes_begin_and_revive_the_same_codes_though_they_draw_differently(tmp_path):
    one, other = two(tmp_path, "fresh")
    assert all(torch.equal(buffer, other[name]) for name, buffer in one.items())
    assert all(bool(buffer) for name, buffer in one.items() if name.endswith("initialized"))


if __name__ == "__main__":  # torchrun test_rvq_workers.py OUT begun|fresh
    torch.set_num_threads(1)
    quantizer = begun() if sys.argv[2] == "begun" else SplitQuantizer(CONFIG).train()
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for parameter in quantizer.parameters():
        torch.distributed.broadcast(parameter.data, 0)
    torch.manual_seed(rank)
    half = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    torch.save(learnt(quantizer, half, steps=STEPS), Path(sys.argv[1]) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
