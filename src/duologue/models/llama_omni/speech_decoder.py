"""mini's speech decoder: units and their prosody from the language model's states, non-autoregressively, by CTC.

The paper's decoder (`ctc_decoder.PaperUnitDecoder`) repeats every hidden state and runs its transformer at the repeated
rate. This one runs the transformer once a token and spreads each result over the same grid, which is as accurate here
and many times cheaper. It hears the state after the token was consumed together with the token's own embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError
from duologue.nn.attention import KVCache
from duologue.nn.conv import CausalConv1d, ConvState
from duologue.nn.transformer import Blocks, TransformerConfig
from duologue.streaming.state import State

HiddenPosition = Literal["predicting", "consumed"]  # the LLM's state that chose a token, or the one that has read it


class UnitDecoder(Protocol):
    """What `LlamaOmni` calls of its speech decoder."""

    config: Any  # with llm_dim, upsample, num_units and num_prosody
    position: HiddenPosition  # which state stands for a token

    def init_state(self, slots: int, capacity: int) -> Any:
        """Streams with no token yet, with room for `capacity` tokens each."""
        ...

    def __call__(
        self, hidden_BTD: Tensor, token_BTD: Tensor, state: Any, live_B: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Scores over units and blank, and prosody where there is any, `upsample` steps a token."""
        ...


@dataclass(frozen=True, kw_only=True)
class SpeechDecoderConfig:
    """Shape of the decoder. Defaults: mini's."""

    llm_dim: int = 576
    dim: int = 384
    layers: int = 3
    heads: int = 6
    ffn_dim: int = 1024
    upsample: int = 12  # steps of the grid a token
    grid_dim: int = 192
    kernel: int = 5
    num_units: int = 64  # the blank is one more
    num_prosody: int = 3  # log duration, log f0, log energy of the unit that begins at a step

    def __post_init__(self):
        if self.dim % (2 * self.heads):
            raise ConfigError(f"heads must divide dim into an even width, got {self.heads} and {self.dim}")

    def blocks(self) -> TransformerConfig:
        """The transformer at token rate."""
        return TransformerConfig(
            vocab_size=1,
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.dim // self.heads,
            ffn_dim=self.ffn_dim,
            rope_theta=10_000.0,
        )


@dataclass
class SpeechDecoderState(State):
    cache: KVCache
    first: ConvState
    second: ConvState


class SpeechDecoder(nn.Module):
    """Token-rate transformer, grid-rate convolutions, two heads."""

    position: HiddenPosition = "consumed"

    def __init__(self, config: SpeechDecoderConfig):
        super().__init__()
        self.config = c = config
        self.hidden_norm = nn.RMSNorm(c.llm_dim, eps=1e-5)
        self.token_norm = nn.RMSNorm(c.llm_dim, eps=1e-5)
        self.input = nn.Linear(2 * c.llm_dim, c.dim)
        self.blocks = Blocks(c.blocks())
        self.norm = nn.RMSNorm(c.dim, eps=1e-5)
        self.spread = nn.Linear(c.dim, c.upsample * c.grid_dim)
        self.conv1 = CausalConv1d(c.grid_dim, c.grid_dim, kernel=c.kernel)
        self.conv2 = CausalConv1d(c.grid_dim, c.grid_dim, kernel=c.kernel)
        self.units = nn.Linear(c.grid_dim, c.num_units + 1)
        self.prosody = nn.Sequential(nn.Linear(c.grid_dim, c.grid_dim), nn.GELU(), nn.Linear(c.grid_dim, c.num_prosody))

    def init_state(self, slots: int, capacity: int) -> SpeechDecoderState:
        """Streams with no token yet, with room for `capacity` tokens each."""
        return SpeechDecoderState(
            self.blocks.init_state(slots, capacity), self.conv1.init_state(slots), self.conv2.init_state(slots)
        )

    def forward(
        self, hidden_BTD: Tensor, token_BTD: Tensor, state: SpeechDecoderState, live_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decodes the next tokens of each live slot.

        Args:
            hidden_BTD: the LLM's last hidden state after it consumed each token.
            token_BTD: the token's embedding.
        Returns:
            logits_BGV over units and blank (the last), G = T * upsample, and prosody_BGP.
        """
        x_BTD = self.input(torch.cat([self.hidden_norm(hidden_BTD), self.token_norm(token_BTD)], dim=-1))
        x_BTD = self.norm(self.blocks(x_BTD, state.cache, live_B))
        B, T, _ = x_BTD.shape
        grid_BCG = self.spread(x_BTD).view(B, T * self.config.upsample, -1).transpose(1, 2)
        grid_BCG = grid_BCG + F.gelu(self.conv1(F.gelu(grid_BCG), state.first, live_B))
        grid_BCG = grid_BCG + F.gelu(self.conv2(grid_BCG, state.second, live_B))
        grid_BGC = grid_BCG.transpose(1, 2)
        return self.units(grid_BGC), self.prosody(grid_BGC)
