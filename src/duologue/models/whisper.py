"""The Whisper-shaped encoder and recogniser's decoder: how the models here hear.

The encoder takes any length up to 30 s without padding. The decoder keeps its past in a `KVCache` and looks at the
encoded audio through a `Memory`. Source: Radford et al. 2022, arXiv:2212.04356.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.nn.attention import CrossAttention, KVCache, Memory, Part, SelfAttention, advance, attend, span
from duologue.nn.init import embedding


@dataclass(frozen=True, kw_only=True)
class WhisperConfig:
    """Shape of encoder and decoder. Defaults: tiny.en."""

    num_mels: int = 80
    dim: int = 384
    heads: int = 6
    ffn_dim: int = 1536
    encoder_layers: int = 4
    decoder_layers: int = 4  # 0: an encoder alone
    max_source: int = 1500  # encoded steps of 20 ms
    max_target: int = 448  # tokens
    vocab_size: int = 51_864
    norm_eps: float = 1e-5

    def __post_init__(self):
        if self.dim % self.heads:
            raise ConfigError(f"heads must divide dim, got {self.heads} and {self.dim}")


class EncoderBlock(nn.Module):
    """Pre-norm attention over the whole sequence, and a GELU feed-forward."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        c = config
        self.heads = c.heads
        self.attention_norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.qkv = nn.Linear(c.dim, 3 * c.dim)
        self.out = nn.Linear(c.dim, c.dim)
        self.ffn_norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.up = nn.Linear(c.dim, c.ffn_dim)
        self.down = nn.Linear(c.ffn_dim, c.dim)

    def forward(self, x_BTD: Tensor, mask_BTK: Tensor | None) -> Tensor:
        B, T, D = x_BTD.shape
        qkv = self.qkv(self.attention_norm(x_BTD)).view(B, T, 3 * self.heads, D // self.heads).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=1)
        x_BTD = x_BTD + self.out(attend(q, k, v, mask_BTK))
        return x_BTD + self.down(F.gelu(self.up(self.ffn_norm(x_BTD))))


class WhisperEncoder(nn.Module):
    """Log-mel features to one vector every 20 ms."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mels, config.dim, 3, padding=1)
        self.conv2 = nn.Conv1d(config.dim, config.dim, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.zeros(config.max_source, config.dim))
        self.layers = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(self, features_BMT: Tensor, frames_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes each row's first `frames_B` frames, as if the rest were not there.

        Returns:
            encoded_BTD, and steps_B: how many of the T steps are real.
        Raises:
            ShapeError: more audio than the positions reach (30 s).
        """
        if features_BMT.shape[1] != self.config.num_mels:
            raise ShapeError(f"WhisperEncoder: need {self.config.num_mels} mel bands, got {features_BMT.shape[1]}")
        steps_B = (frames_B + 1) // 2
        longest = int(steps_B.max())
        if longest > self.config.max_source:
            raise ShapeError(
                f"WhisperEncoder: need at most {self.config.max_source} steps of 20 ms, got {longest}. "
                "Cut the audio into shorter segments."
            )
        ragged = bool((frames_B != frames_B[0]).any())
        frame_T = torch.arange(features_BMT.shape[-1], device=features_BMT.device)
        inside = (frame_T < frames_B[:, None])[:, None]
        x = F.gelu(self.conv1(features_BMT * inside)) * inside
        x_BTD = F.gelu(self.conv2(x)).transpose(1, 2)[:, :longest] + self.positions[:longest]
        mask_BTK = None
        if ragged:
            step_T = torch.arange(longest, device=features_BMT.device)
            mask_BTK = (step_T < steps_B[:, None])[:, None].expand(-1, longest, -1)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_BTK)
        return self.norm(x_BTD), steps_B


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the encoded audio, feed-forward."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        c = config
        self.attention_norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.attention = SelfAttention(
            c.dim, heads=c.heads, kv_heads=c.heads, head_dim=c.dim // c.heads, qkv_bias=True, out_bias=True
        )
        self.cross_norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.cross = CrossAttention(c.dim, heads=c.heads)
        self.ffn_norm = nn.LayerNorm(c.dim, eps=c.norm_eps)
        self.up = nn.Linear(c.dim, c.ffn_dim)
        self.down = nn.Linear(c.ffn_dim, c.dim)

    def remember(self, encoded_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """This layer's keys and values of the encoded audio."""
        return self.cross.remember(encoded_BTD)

    def forward(self, x_BTD: Tensor, part: Part, layer: int, memory: Memory, mask_BTK: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), [part], layer)
        keys, values = memory.k_BLHTD[:, layer], memory.v_BLHTD[:, layer]
        x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), keys, values, mask_BTK)
        return x_BTD + self.down(F.gelu(self.up(self.ffn_norm(x_BTD))))


class WhisperDecoder(nn.Module):
    """Writes what the encoder heard, token by token; its last hidden states are what mini's LLM hears."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.config = config
        self.embedding = embedding(config.vocab_size, config.dim)
        self.positions = nn.Parameter(torch.zeros(config.max_target, config.dim))
        self.layers = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def init_state(self, slots: int, capacity: int | None = None) -> KVCache:
        """An empty cache for the tokens written so far."""
        c = self.config
        return KVCache.make(
            slots,
            layers=c.decoder_layers,
            kv_heads=c.heads,
            capacity=capacity or c.max_target,
            head_dim=c.dim // c.heads,
            like=self.norm.weight,
        )

    def remember(self, encoded_BTD: Tensor, steps_B: Tensor) -> Memory:
        """Keys and values of the encoded audio, for every layer."""
        pairs = [layer.remember(encoded_BTD) for layer in self.layers]  # type: ignore[operator]
        return Memory(torch.stack([k for k, _ in pairs], 1), torch.stack([v for _, v in pairs], 1), steps_B)

    def forward(
        self, ids_BT: Tensor, state: KVCache, memory: Memory, live_B: Tensor, steps_B: Tensor | None = None
    ) -> Tensor:
        """Hidden states (after the last norm) of the next tokens of each live slot.

        Raises:
            ShapeError: more tokens than the cache or the positions hold.
        """
        plan = span(state, ids_BT.shape[1], live_B, steps_B)
        if plan.keys > self.config.max_target:
            raise ShapeError(
                f"WhisperDecoder: need at most {self.config.max_target} tokens, got {plan.keys}. Hear shorter segments."
            )
        positions_BT = plan.positions_BT.clamp(max=self.config.max_target - 1)  # padding may point beyond
        x_BTD = self.embedding(ids_BT) + self.positions[positions_BT]
        mask_BTK = None
        if bool((memory.length_B != memory.k_BLHTD.shape[3]).any()):
            step_K = torch.arange(memory.k_BLHTD.shape[3], device=ids_BT.device)
            mask_BTK = (step_K < memory.length_B[:, None])[:, None].expand(-1, ids_BT.shape[1], -1)
        part = Part(slice(None), state, plan)
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, part, index, memory, mask_BTK)
        advance([part])
        return self.norm(x_BTD)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary."""
        return F.linear(hidden_BTD, self.embedding.weight)


class Whisper(nn.Module):
    """Encoder and decoder together."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(config)
        self.decoder = WhisperDecoder(config)
