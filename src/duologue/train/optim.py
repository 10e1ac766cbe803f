"""AdamW with warm-up and decay, and a running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duologue.errors import ConfigError, TrainError

SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) and its rate over the run."""

    lr: float = 1e-3  # the highest rate, reached at the end of the warm-up
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0  # of matrices; vectors (norms, biases) are never decayed
    warmup: int = 100  # steps of linear rise
    schedule: str = "cosine"  # or linear, constant: what follows the warm-up
    final: float = 0.0  # the rate at the last step, as a part of lr
    clip: float = 1.0  # the largest norm of the whole gradient; 0: no clipping
    rates: tuple[tuple[str, float], ...] = ()  # (start of a parameter's name, factor on lr); the first that fits counts

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"optimizer.schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.lr <= 0 or self.warmup < 0 or self.clip < 0 or not 0 <= self.final <= 1:
            raise ConfigError(f"optimizer: need lr > 0, warmup >= 0, clip >= 0 and 0 <= final <= 1, got {self}")


def factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`, as a part of `config.lr`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup) / max(1, steps - 1 - config.warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.final + (1 - config.final) * left


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that need a gradient.

    Raises:
        TrainError: nothing to train.
        ConfigError: a name in `config.rates` fits no parameter.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    unused = {prefix for prefix, _ in config.rates}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        fits = [(prefix, rate) for prefix, rate in config.rates if name.startswith(prefix)]
        unused -= {prefix for prefix, _ in fits}
        decay = config.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((fits[0][1] if fits else 1.0, decay), []).append(parameter)
    if not groups:
        raise TrainError("nothing to train: no parameter of the module needs a gradient. Check what the task freezes.")
    if unused:
        names = ", ".join(sorted({name.split(".")[0] for name, p in module.named_parameters() if p.requires_grad}))
        raise ConfigError(
            f"optimizer.rates: no trained parameter begins with {', '.join(sorted(unused))}; they begin with {names}"
        )
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": config.lr * rate, "weight_decay": decay, "rate": rate}
            for (rate, decay), parameters in groups.items()
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,  # one pass over the memory
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group, each by its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def scale_and_clip(module: nn.Module, *, scale: float, clip: float) -> float:
    """Multiplies every gradient by `scale`, then shortens the whole to `clip` if it is longer (0: never).

    Returns:
        The norm before clipping.
    """
    trained = [parameter for parameter in module.parameters() if parameter.grad is not None]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    for gradient in gradients if scale != 1 else ():
        gradient.mul_(scale)
    norm = nn.utils.get_total_norm(gradients)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded: the parts together
    if clip:
        nn.utils.clip_grads_with_norm_(trained, clip, norm)
    return float(norm)


class Ema:
    """Running mean of the trained weights, kept in float32."""

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay = module, decay
        self.mean = {name: p.detach().float().clone() for name, p in self._trained()}

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.module.named_parameters() if p.requires_grad)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after step `step`; the mean is short in the beginning so that it forgets the start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._trained():
            self.mean[name].lerp_(parameter.float(), 1 - decay)

    @torch.no_grad()
    def reset(self) -> None:
        """Makes the mean equal to the weights as they are."""
        for name, parameter in self._trained():
            self.mean[name].copy_(parameter)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module carries the mean inside this block, and its own weights again after it."""
        kept = {name: p.detach().clone() for name, p in self._trained()}
        try:
            with torch.no_grad():
                for name, parameter in self._trained():
                    parameter.copy_(self.mean[name])
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._trained():
                    parameter.copy_(kept[name])
