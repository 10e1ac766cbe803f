"""Does what was said sound complete? A small head on the state in which the listener ends the sentence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TurnHeadConfig:
    """Shape of the head. Defaults: mini."""

    state_dim: int = 384
    hidden_dim: int = 64


class TurnHead(nn.Module):
    """State and log-probability of the end to the log-odds that the speaker has finished."""

    def __init__(self, config: TurnHeadConfig):
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.state_dim)
        self.up = nn.Linear(config.state_dim + 1, config.hidden_dim)
        self.down = nn.Linear(config.hidden_dim, 1)

    def forward(self, state_BD: Tensor, log_prob_B: Tensor) -> Tensor:
        """Log-odds, [B].

        Args:
            state_BD: the decoder's state that wrote the end of the sentence.
            log_prob_B: the end's log-probability there.
        """
        features = torch.cat([self.norm(state_BD.float()), log_prob_B.float()[:, None]], dim=-1)
        return self.down(F.gelu(self.up(features)))[:, 0]
