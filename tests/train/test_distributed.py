"""Two processes over gloo on the CPU, against one."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from train.toy import SCRIPT, exported, steps, toy_config

from duologue.errors import ConfigError
from duologue.train import train


def torchrun(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, str(out), *arguments], env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    train(toy_config(out, accumulation=4, ema=0.9))
    return out


@pytest.mark.parametrize("shard", [0, 1], ids=["ddp", "fsdp"])
def test_two_processes_give_the_losses_of_one(alone, tmp_path, shard):
    """Dropout and batches of unequal weight included. Then one process goes on from a checkpoint of the two."""
    run = torchrun(tmp_path, "fresh", "accumulation=4", "ema=0.9", f"shard={shard}")
    assert run.returncode == 0, run.stderr[-2000:]
    assert_same(alone, tmp_path)
    (tmp_path / "checkpoints" / "step-000000012.pt").unlink()  # as if they had died after step 8
    train(toy_config(tmp_path, accumulation=4, ema=0.9, shard=bool(shard)), resume=True)
    assert_same(alone, tmp_path)


def assert_same(alone: Path, together: Path) -> None:
    for one, two in zip(steps(alone), steps(together), strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    mine, theirs = exported(alone), exported(together)
    del mine["seen"], theirs["seen"]  # counts the calls of one process
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5)


def test_processes_that_cannot_share_a_step_evenly_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("duologue.train.loop.Processes", lambda **_: SimpleNamespace(count=2, rank=0, main=True))
    with pytest.raises(ConfigError, match=r"3 micro-batches a step cannot be shared by 2 processes. Set accumulation"):
        train(toy_config(tmp_path, accumulation=3))
