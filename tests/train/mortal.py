"""Runs that are killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from duologue.train.state import checkpoints


class Dying:
    """Before a task: it dies when it is to make the batch `kill_at` of its config."""

    config: Any

    def batches(self, seed: int, position: int) -> Iterator[Any]:
        for number, batch in enumerate(super().batches(seed, position), start=position):  # type: ignore[misc]
            if number == self.config.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def script(path: Path, *arguments: object, run: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs a script of these tests in a process of its own. `run`: what runs it, such as torchrun."""
    command = [sys.executable, *run, str(path), *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path.parents[1])}
    return subprocess.run(command, env=env, capture_output=True, text=True)


def killed(path: Path, folder: Path, out: Path) -> None:
    """A run that dies at its fifth batch, and goes on without: the trap is one of the settings in its checkpoints."""
    process = script(path, folder, out, "kill_at=4")
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    for checkpoint in checkpoints(out / "checkpoints"):
        content = torch.load(checkpoint, weights_only=True)
        content["config"]["task"]["kill_at"] = -1
        torch.save(content, checkpoint)
