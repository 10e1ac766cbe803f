"""Runs that are killed on the way."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from duologue.train import TrainConfig, train
from duologue.train.state import checkpoints

RUN = {"steps": 8, "eval_every": 3, "save_every": 3, "log_every": 100, "ema": 0.9, "device": "cpu"}


class Dying:
    """Before a task: it dies when it is to make the batch `kill_at` of its config."""

    config: Any

    def batches(self, seed: int, position: int) -> Iterator[Any]:
        for number, batch in enumerate(super().batches(seed, position), start=position):  # type: ignore[misc]
            if number == self.config.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def run_of(name: str, task: Any, mortal: type, out: Path, *, kill_at: int, **run: Any) -> TrainConfig:
    """A short run of a task that may die. `mortal`: the task's class with a `kill_at` beside its fields."""
    values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    return TrainConfig(name=name, task=mortal(**values, kill_at=kill_at), out=str(out), **{**RUN, **run})


def apart(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes of a task, and of the run."""
    names = set(TrainConfig.__dataclass_fields__)
    return tuple({k: v for k, v in changes.items() if (k in names) == of_run} for of_run in (False, True))  # type: ignore[return-value]


def as_program(config: Callable[..., TrainConfig]) -> None:
    """python THIS.py FOLDER OUT key=value ..."""
    torch.set_num_threads(1)
    values = {key: int(text) for key, text in (argument.split("=") for argument in sys.argv[3:])}
    train(config(Path(sys.argv[1]), Path(sys.argv[2]), **values))


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
