"""Everything that a training run needs to go on as if it had never stopped, and its files."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from duologue.errors import TrainError
from duologue.train.optim import Ema

FORMAT = 1


@dataclass
class Best:
    """The best evaluation so far, by the metric that the config names."""

    step: int = -1
    value: float = 0.0
    evaluation: dict[str, float] = field(default_factory=dict)


@dataclass
class TrainState:
    """The state of a run. Frozen parameters are not part of it: `Task.build` makes them again."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0  # steps done
    position: int = 0  # micro-batches taken from the task's stream
    seconds: float = 0.0  # of training, over all sessions of this run
    peak_memory: int = 0  # bytes
    best: Best = field(default_factory=Best)
    evaluation: dict[str, float] = field(default_factory=dict)  # the latest

    def save(self, path: Path, *, config: dict[str, Any], main: bool) -> None:
        """Writes a checkpoint, whole or not at all. Every process must call this; the main one writes.

        Raises:
            TrainError: the file cannot be written.
        """
        content = {
            "format": FORMAT,
            "config": config,
            "model": weights(self.module),
            "optimizer": moments(self.module, self.optimizer),
            "ema": self._ema_weights(),
            "generators": generators(),
            "step": self.step,
            "position": self.position,
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "best": vars(self.best),
            "evaluation": self.evaluation,
        }
        if main:
            write_whole(path, lambda part: torch.save(content, part))

    def load(self, path: Path) -> None:
        """Puts a checkpoint back into the module, the optimizer and the random generators.

        Raises:
            TrainError: damaged, or of another module.
        """
        content = read(path)
        own = set(_own(self.module))
        if own != set(content["model"]):
            odd = sorted(own ^ set(content["model"]))
            raise TrainError(
                f"{path}: was made by another module ({len(odd)} names differ, for example {odd[0]}). "
                "Use the recipe and the settings that the run was begun with, or begin a new run."
            )
        if self.ema is not None:
            put(self.module, content["ema"])
            self.ema.reset()
        put(self.module, content["model"])
        put_moments(self.module, self.optimizer, content["optimizer"])
        self.step, self.position = content["step"], content["position"]
        self.seconds, self.peak_memory = content["seconds"], content["peak_memory"]
        self.best, self.evaluation = Best(**content["best"]), content["evaluation"]
        set_generators(content["generators"])

    def _ema_weights(self) -> dict[str, Tensor]:
        if self.ema is None:
            return {}
        with self.ema.applied():
            return weights(self.module)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the trained weights and of the buffers, whole and on the CPU, also of a sharded module."""
    return {name: _whole(value) for name, value in _own(module).items()}


@torch.no_grad()
def put(module: nn.Module, saved: dict[str, Tensor]) -> None:
    """The reverse of `weights`."""
    for name, value in _own(module).items():
        value.copy_(_like(value, saved[name]))


def moments(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """The optimizer's memory of every parameter by name, whole and on the CPU."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        names[parameter]: {key: _whole(value) for key, value in memory.items()}
        for parameter, memory in optimizer.state.items()
    }


def put_moments(module: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, dict[str, Tensor]]) -> None:
    """The reverse of `moments`."""
    parameters = dict(module.named_parameters())
    for name, memory in saved.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: _like(parameter, value).clone() if value.shape == parameter.shape and key != "step" else value
            for key, value in memory.items()
        }


def _own(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a run changes, by name: everything but frozen parameters."""
    entries = module.state_dict(keep_vars=True).items()
    return {name: value for name, value in entries if not isinstance(value, nn.Parameter) or value.requires_grad}


def _whole(value: Tensor) -> Tensor:
    value = value.detach()
    value = value.full_tensor() if isinstance(value, DTensor) else value
    return value.to("cpu", copy=True).contiguous()


def _like(own: Tensor, value: Tensor) -> Tensor:
    """`value` on the device of `own`, and sharded as it is."""
    value = value.to(own.device)
    return distribute_tensor(value, own.device_mesh, own.placements) if isinstance(own, DTensor) else value


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        TrainError: cannot be read, or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise TrainError(
            f"{path}: cannot read this checkpoint ({error}). Delete it to go on from the one before."
        ) from error
    if content.get("format") != FORMAT:
        raise TrainError(f"{path}: checkpoint format {content.get('format')}, this version reads {FORMAT}.")
    return content


def save_weights(path: Path, saved: dict[str, Tensor], notes: dict[str, str]) -> None:
    """Writes weights as safetensors, whole or not at all."""
    write_whole(path, lambda part: save_file(saved, part, metadata=notes))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads what `save_weights` wrote.

    Raises:
        TrainError: missing or damaged.
    """
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own kinds besides OSError
        raise TrainError(f"{path}: cannot read the weights ({error}). Begin the run again.") from error


def write_whole(path: Path, write: Any) -> None:
    """Calls `write` with the path of a temporary file beside `path`, then renames it.

    Raises:
        TrainError: the disk is full or cannot be written; nothing is left behind.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except Exception as error:  # torch raises RuntimeError, not OSError, when the disk is full
        part.unlink(missing_ok=True)
        raise TrainError(
            f"{path}: cannot write ({error}). Make room or choose another --out, then --resume."
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.pt"


def generators() -> dict[str, Any]:
    """The random generators of torch, numpy and python, as plain types and tensors."""
    name, keys, index, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(index), int(has_gauss), float(gauss)],
        "python": random.getstate(),
    }


def set_generators(saved: dict[str, Any]) -> None:
    """The reverse of `generators`."""
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.device_count() == len(saved["cuda"]):
        torch.cuda.set_rng_state_all(saved["cuda"])
    name, keys, index, has_gauss, gauss = saved["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), index, has_gauss, gauss))
    random.setstate(saved["python"])


def seed_all(seed: int, position: int) -> None:
    """Seeds every generator for one micro-batch.

    Dropout and the like then depend on the seed and the position alone: not on how often a run was stopped, on how many
    processes share it, or on what an evaluation drew in between.
    """
    seeds = np.random.SeedSequence([seed, position]).generate_state(3)
    torch.manual_seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    random.seed(int(seeds[2]))
