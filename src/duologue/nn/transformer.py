"""Decoder-only transformer of the Llama and Qwen shape: every family's LLM, and the layers of its speech decoders."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.nn.attention import KVCache, Part, RopeScaling, Rotary, SelfAttention, advance, parts, positions
from duologue.nn.init import embedding


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of a decoder-only transformer. Defaults: SmolLM2-135M."""

    vocab_size: int = 49_152
    dim: int = 576
    layers: int = 30
    heads: int = 9
    kv_heads: int = 3
    head_dim: int = 64
    ffn_dim: int = 1536
    norm_eps: float = 1e-5
    rope_theta: float = 100_000.0
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool = True
    qkv_bias: bool = False  # Qwen2
    qk_norm: bool = False  # Qwen3

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise ConfigError(f"kv_heads must divide heads, got {self.kv_heads} and {self.heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even for rotary positions, got {self.head_dim}")


class Block(nn.Module):
    """Pre-norm attention and gated feed-forward (SwiGLU)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        c = config
        self.attention_norm = nn.RMSNorm(c.dim, eps=c.norm_eps)
        self.attention = SelfAttention(
            c.dim,
            heads=c.heads,
            kv_heads=c.kv_heads,
            head_dim=c.head_dim,
            qkv_bias=c.qkv_bias,
            qk_norm_eps=c.norm_eps if c.qk_norm else None,
        )
        self.ffn_norm = nn.RMSNorm(c.dim, eps=c.norm_eps)
        self.gate_up = nn.Linear(c.dim, 2 * c.ffn_dim, bias=False)
        self.down = nn.Linear(c.ffn_dim, c.dim, bias=False)

    def forward(self, x_BTD: Tensor, parts: list[Part], layer: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), parts, layer, rotary)
        gate, up = self.gate_up(self.ffn_norm(x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.down(F.silu(gate) * up)


class Blocks(nn.Module):
    """A stack of causal blocks over one cache: no embeddings, no final norm."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.rotary = Rotary(config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling)

    def init_state(self, slots: int, capacity: int) -> KVCache:
        """An empty cache with room for `capacity` positions a slot."""
        c, like = self.config, next(self.parameters())
        return KVCache.make(
            slots, layers=c.layers, kv_heads=c.kv_heads, capacity=capacity, head_dim=c.head_dim, like=like
        )

    def forward(self, x_BTD: Tensor, state: KVCache, live_B: Tensor, steps_B: Tensor | None = None) -> Tensor:
        """Runs the next steps of each live slot and adds them to `state`.

        Args:
            steps_B: how many of the T steps count in each slot; the rest is padding. None: all.
        Returns:
            [B, T, D]; padding and rows that are not live mean nothing.
        Raises:
            ShapeError: no room left in the cache, or a width that does not fit.
        """
        if x_BTD.shape[-1] != self.config.dim:
            raise ShapeError(f"Blocks: need width {self.config.dim}, got {x_BTD.shape[-1]}. Check the part before it.")
        planned, rows_R = parts(state, x_BTD.shape[1], live_B, steps_B)
        x_RTD = x_BTD if rows_R is None else x_BTD[rows_R]
        rotary = self.rotary(positions(planned))
        for layer, block in enumerate(self.layers):
            x_RTD = block(x_RTD, planned, layer, rotary)
        advance(planned)
        return x_RTD if rows_R is None else x_RTD.new_zeros(x_BTD.shape).index_copy_(0, rows_R, x_RTD)


class Transformer(nn.Module):
    """A language model: embeddings, blocks, final norm, logits."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embedding = embedding(config.vocab_size, config.dim)
        self.blocks = Blocks(config)
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.head = None if config.tied_embeddings else nn.Linear(config.dim, config.vocab_size, bias=False)

    def init_state(self, slots: int, capacity: int) -> KVCache:
        """An empty cache with room for `capacity` positions a slot."""
        return self.blocks.init_state(slots, capacity)

    def forward(self, x_BTD: Tensor, state: KVCache, live_B: Tensor, steps_B: Tensor | None = None) -> Tensor:
        """Last hidden states (after the final norm) of the next steps; see `Blocks.forward`."""
        return self.norm(self.blocks(x_BTD, state, live_B, steps_B))

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary, from `forward`'s states."""
        return F.linear(hidden_BTD, self.embedding.weight) if self.head is None else self.head(hidden_BTD)
