"""Conditions of a conversation, such as how good its speech is to be, as learnt vectors that are added at every step.

Each condition has a table of values, as Hibiki's do (Labiausse et al. 2025, arXiv:2502.03382).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from duologue.errors import ConfigError
from duologue.models.moshi.config import ConditionConfig
from duologue.nn.init import embedding


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Under which conditions a conversation is said, and how strongly it is drawn to them.

    Classifier-free guidance: the scores are those under `against` plus `coefficient` times the way from there to those
    under `conditions`. It needs a second row of the model and of its memory. Ho and Salimans 2022, arXiv:2207.12598.
    """

    conditions: Mapping[str, str] = field(default_factory=dict)  # a value each; one that is not named: none
    against: Mapping[str, str] = field(default_factory=dict)
    coefficient: float = 1.0  # 1: no guidance, and no second row

    def __post_init__(self):
        if not math.isfinite(self.coefficient) or self.coefficient < 0:
            raise ConfigError(f"guidance: need a coefficient of 0 or more, got {self.coefficient}")


class ConditionTable(nn.Module):
    """One condition: a vector for each value, and one for none."""

    def __init__(self, config: ConditionConfig, dim: int):
        super().__init__()
        self.bins = config.bins
        self.table = embedding(config.bins + 1, config.dim)  # the last is never read; their files have it
        self.projection = nn.Linear(config.dim, dim, bias=False)
        self.none = nn.Parameter(torch.zeros(dim))

    def forward(self, ids_B: Tensor) -> Tensor:
        return torch.where((ids_B < self.bins)[:, None], self.projection(self.table(ids_B)), self.none)


class Conditions(nn.Module):
    """All conditions of a model, added up. Stays in float32 whatever the model is in."""

    def __init__(self, configs: Sequence[ConditionConfig], dim: int):
        super().__init__()
        self.configs = tuple(configs)
        self.tables = nn.ModuleList(ConditionTable(config, dim) for config in configs)

    def forward(self, ids_BN: Tensor) -> Tensor:
        """[B, D], from the row of each condition's table."""
        return torch.stack([table(ids_B) for table, ids_B in zip(self.tables, ids_BN.unbind(1), strict=True)]).sum(0)

    def none(self, rows: int, device: torch.device) -> Tensor:
        """The ids of no condition at all, [B, N]."""
        return torch.tensor(self.ids({}), device=device).repeat(rows, 1)

    def ids(self, values: Mapping[str, str]) -> list[int]:
        """The row of each condition's table.

        Raises:
            ConfigError: a condition or a value that there is not.
        """
        names = [config.name for config in self.configs]
        for name in values:
            if name not in names:
                raise ConfigError(f"conditions: there is no condition {name!r}; there are {', '.join(names)}")
        return [_row(config, values.get(config.name)) for config in self.configs]

    def numbers(self, guidance: Guidance) -> list[float]:
        """A choice as `MoshiState` holds it: that there is one, the coefficient, both rows of ids.

        Raises:
            ConfigError: a condition or a value that there is not, or guidance to what it leads away from.
        """
        ids, against = self.ids(guidance.conditions), self.ids(guidance.against)
        if guidance.coefficient != 1 and ids == against:
            raise ConfigError(
                f"guidance of {guidance.coefficient:g}: need conditions other than those it leads away from, got "
                f"{dict(guidance.conditions)} and {dict(guidance.against)}. Choose `conditions`, or a guidance of 1"
            )
        return [1.0, guidance.coefficient, *ids, *against]


def _row(config: ConditionConfig, value: str | None) -> int:
    if value is None:
        return config.bins
    if config.values is None:  # any text, by its hash
        return int.from_bytes(hashlib.sha256(value.encode()).digest(), "big") % config.bins
    if value not in config.values:
        raise ConfigError(f"conditions: {config.name} cannot be {value!r}, only {', '.join(config.values)}")
    return config.values.index(value)
