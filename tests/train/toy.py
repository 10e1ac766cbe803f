"""A tiny task with all that can go wrong in a resume: dropout, a buffer, a frozen part, batches of unequal weight."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from duologue.train import OptimizerConfig, TrainConfig, train
from duologue.train.order import indices
from duologue.train.progress import read_log

WIDTH = 6
SCRIPT = Path(__file__)


class Block(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(torch.tanh(self.inner(x)))


class Net(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.blocks = nn.Sequential(Block(dropout), Block(dropout))
        self.head = nn.Linear(WIDTH, 1)
        self.unused = nn.Parameter(torch.ones(3))  # never gets a gradient
        self.register_buffer("seen", torch.zeros(()))

    def hidden(self, x: Tensor) -> Tensor:
        return self.blocks(self.frozen(x))


@dataclass(frozen=True)
class ToyTask:
    """Regression; the loss is the mean over the rows that a batch happens to have."""

    dropout: float = 0.2
    batch: int = 4
    kill_at: int = -1  # micro-batch at which the process dies without a word
    spoil_at: int = -1  # micro-batch whose loss is not a number

    def build(self) -> nn.Module:
        return Net(self.dropout)

    def prepare(self) -> None:
        pass

    def batches(self, seed: int, position: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(40, WIDTH, generator=generator)
        y = x.sum(-1, keepdim=True).sin()
        for rows in indices(len(x), batch=self.batch, seed=seed, position=position):
            if position == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            rows = rows[: 1 + rows[0] % self.batch]
            yield {"x": x[rows], "y": y[rows] * (float("nan") if position == self.spoil_at else 1)}
            position += 1

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        if module.training and self.dropout:
            module.seen += 1
        predicted = module.head(module.hidden(batch["x"]))  # not through module.forward
        value = F.mse_loss(predicted, batch["y"])
        return value, {"weight": len(batch["x"]), "size": predicted.detach().abs().mean()}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        x = torch.linspace(-1, 1, 5 * WIDTH).view(5, WIDTH)
        torch.rand(3)  # an evaluation that draws numbers must not change the training
        error = F.mse_loss(module.head(module.hidden(x)), x.sum(-1, keepdim=True).sin())
        return {"error": float(error), "training": float(module.training)}

    def export(self, module: nn.Module, folder: Path) -> None:
        save_file({name: value.clone() for name, value in module.state_dict().items()}, folder / "toy.safetensors")


def toy_config(out: Path | str, **changes: Any) -> TrainConfig:
    task = ToyTask(**{key: changes.pop(key) for key in list(changes) if key in ToyTask.__dataclass_fields__})
    base = TrainConfig(
        name="toy",
        task=task,
        steps=12,
        optimizer=OptimizerConfig(lr=0.02, warmup=2, weight_decay=0.1),
        accumulation=2,
        eval_every=5,
        save_every=4,
        log_every=100,
        seed=3,
        out=str(out),
        device="cpu",
    )
    return dataclasses.replace(base, **changes)


def steps(out: Path) -> list[dict[str, float]]:
    """What a run logged of every step, without the clock."""
    lines = [line for line in read_log(out / "log.jsonl") if "evaluation" not in line]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def exported(out: Path) -> dict[str, Tensor]:
    return load_file(out / "export" / "toy.safetensors")


if __name__ == "__main__":  # python toy.py OUT resume|fresh key=value ...
    torch.set_num_threads(1)
    values = {
        key: int(text) if text.lstrip("-").isdigit() else float(text)
        for key, text in (argument.split("=") for argument in sys.argv[3:])
    }
    train(toy_config(sys.argv[1], **values), resume=sys.argv[2] == "resume")
