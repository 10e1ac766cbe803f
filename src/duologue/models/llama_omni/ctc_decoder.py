"""The paper's speech decoder: units by CTC from the LLM's hidden states, streaming with a cache.

Source: LLaMA-Omni (Fang et al. 2024, arXiv:2409.06666), section 2.4. The released code runs the whole prefix again for
every token; a causal decoder over the repeated states gives the same numbers from a cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.models.llama_omni.speech_decoder import HiddenPosition
from duologue.nn.attention import KVCache, RopeScaling
from duologue.nn.transformer import Blocks, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class PaperUnitDecoderConfig:
    """Shape of the decoder. Defaults: the released Llama-3.1-8B-Omni."""

    hidden_dim: int = 4096  # of the LLM
    dim: int = 4096
    layers: int = 2
    heads: int = 32  # as many key heads
    ffn_dim: int = 11_008
    upsample: int = 25  # steps for each hidden state (lambda)
    num_units: int = 1000  # the blank comes after them
    norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None

    def __post_init__(self):
        if self.dim % self.heads:
            raise ConfigError(f"heads must divide dim, got {self.heads} and {self.dim}")
        if min(self.upsample, self.num_units) < 1:
            raise ConfigError(f"upsample and num_units must be at least 1, got {self}")

    @property
    def blank(self) -> int:
        return self.num_units

    @property
    def llm_dim(self) -> int:
        return self.hidden_dim

    @property
    def num_prosody(self) -> int:
        return 0

    def blocks(self) -> TransformerConfig:
        """The shape of the layers; they have no embeddings and no final norm."""
        return TransformerConfig(
            vocab_size=1,
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.dim // self.heads,
            ffn_dim=self.ffn_dim,
            norm_eps=self.norm_eps,
            rope_theta=self.rope_theta,
            rope_scaling=self.rope_scaling,
        )


def answer_states(hidden_BTD: Tensor, begins_B: Tensor, counts_B: Tensor, *, position: HiddenPosition) -> Tensor:
    """The hidden states that stand for an answer's tokens, [B, max(counts), D]; beyond counts they mean nothing.

    Args:
        hidden_BTD: the LLM's states over prompt and answer.
        begins_B: where the answer's first token stands in its row.
        counts_B: tokens of the answer, its end token included.
        position: "predicting": the state that chose the token, one step before it, as released models speak.
            "consumed": the state that has read it, as they were trained.
    Raises:
        ShapeError: the answer does not lie within the states.
    """
    first_B = begins_B - 1 if position == "predicting" else begins_B
    if int(first_B.min()) < 0 or int((first_B + counts_B).max()) > hidden_BTD.shape[1]:
        raise ShapeError(
            f"answer_states: answers begin at {begins_B.tolist()} and have {counts_B.tolist()} tokens, which do not "
            f"lie within {hidden_BTD.shape[1]} states"
        )
    index_BN = first_B[:, None] + torch.arange(int(counts_B.max()), device=hidden_BTD.device)
    index_BN = index_BN.clamp(max=hidden_BTD.shape[1] - 1)
    return hidden_BTD.gather(1, index_BN[..., None].expand(-1, -1, hidden_BTD.shape[2]))


class PaperUnitDecoder(nn.Module):
    """Projection, repetition, causal layers, scores over units and blank."""

    def __init__(self, config: PaperUnitDecoderConfig):
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.hidden_dim, config.dim)
        self.blocks = Blocks(config.blocks())
        self.output_proj = nn.Linear(config.dim, config.num_units + 1)

    def init_state(self, slots: int, capacity: int) -> KVCache:
        """An empty cache with room for `capacity` hidden states a slot."""
        return self.blocks.init_state(slots, capacity * self.config.upsample)

    def forward(self, hidden_BTD: Tensor, state: KVCache, live_B: Tensor, steps_B: Tensor | None = None) -> Tensor:
        """Decodes the next hidden states of each live slot.

        Args:
            hidden_BTD: the LLM's last hidden states, after its final norm.
            steps_B: how many of the T states count in each slot. None: all.
        Returns:
            logits_BTV over units and blank, T * upsample steps; what comes of padding means nothing.
        Raises:
            ShapeError: no room left in the cache.
        """
        upsample = self.config.upsample
        x_BTD = self.input_proj(hidden_BTD).repeat_interleave(upsample, dim=1)
        x_BTD = self.blocks(x_BTD, state, live_B, None if steps_B is None else steps_B * upsample)
        return self.output_proj(x_BTD)


class PaperSpeechDecoder(nn.Module):
    """The paper's decoder as a model's speech decoder (`speech_decoder.UnitDecoder`): units alone, no prosody.

    Args:
        position: which of the LLM's states stand for the tokens; see `answer_states`.
    """

    def __init__(self, decoder: PaperUnitDecoder, *, position: HiddenPosition = "predicting"):
        super().__init__()
        self.decoder, self.config, self.position = decoder, decoder.config, position

    def init_state(self, slots: int, capacity: int) -> KVCache:
        """See `PaperUnitDecoder.init_state`."""
        return self.decoder.init_state(slots, capacity)

    def forward(self, hidden_BTD: Tensor, token_BTD: Tensor, state: KVCache, live_B: Tensor) -> tuple[Tensor, None]:
        """Decodes the next hidden states of each live slot; the tokens themselves are not looked at."""
        return self.decoder(hidden_BTD.to(self.decoder.input_proj.weight.dtype), state, live_B), None
