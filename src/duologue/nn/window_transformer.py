"""Causal transformer over a window of the past, for streams without an end.

It is Moshi's temporal transformer and, with other norms and feed-forwards, both transformers of Mimi (Defossez et al.
2024, arXiv:2410.00037).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.nn.ring import RingCache, RingPlan, advance, attend_ring, plan_ring, plan_static


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Shape of a windowed transformer. Defaults: Moshi's temporal transformer."""

    dim: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int | None = None  # None: as many as heads
    ffn_dim: int = 11_264
    ffn: str = "silu_gated"  # or "gelu"
    norm: str = "rms"  # or "layer", with a bias
    norm_eps: float = 1e-8
    layer_scale: float | None = None  # what the learnt scale of each branch begins with; None: no scale
    rope_theta: float | None = 10_000.0  # None: no positions
    context: int = 3000  # steps that one step sees, itself included
    chunk: int = 1  # steps a call usually brings: up to this many need no copy of the cache

    def __post_init__(self):
        if self.dim % self.heads or self.heads % self.key_heads or self.head_dim % 2:
            raise ConfigError(f"heads must divide dim into even parts, and kv_heads must divide heads, got {self}")
        if self.ffn not in ("silu_gated", "gelu") or self.norm not in ("rms", "layer"):
            raise ConfigError(f"need ffn 'silu_gated' or 'gelu' and norm 'rms' or 'layer', got {self.ffn}, {self.norm}")
        if self.context < 1 or self.chunk < 1:
            raise ConfigError(f"context and chunk must be at least 1, got {self.context} and {self.chunk}")

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm`; on a CPU without gradients in half the time.

    Torch makes it there of six operations, but a layer norm is one: that of x and -x beside each other has no mean to
    take away, and the variance is the mean square. A step of Moshi has ninety norms of one row.
    """

    _twice: tuple[object, Tensor] | None = None  # the weight beside itself, and which weight that was

    def forward(self, x: Tensor) -> Tensor:
        weight = self._parameters["weight"]
        if weight is None or self.eps is None or not x.is_cpu or x.dtype != weight.dtype or torch.is_grad_enabled():
            return super().forward(x)
        mark = weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version
        if self._twice is None or self._twice[0] != mark:
            self._twice = mark, torch.cat([weight, weight]).detach()
        dim = x.shape[-1]
        both = torch.layer_norm(torch.cat([x, -x], dim=-1), (2 * dim,), self._twice[1], None, self.eps)
        return both.narrow(-1, 0, dim).contiguous()


def make_norm(kind: str, dim: int, eps: float) -> nn.Module:
    """A norm ("rms" or "layer") that computes in float32, whatever comes in."""
    return RMSNorm(dim, eps=eps) if kind == "rms" else nn.LayerNorm(dim, eps=eps)


def turns(positions_BT: Tensor, head_dim: int, theta: float) -> Tensor:
    """Rotary positions as complex numbers of length 1, [B, T, 1, head_dim / 2]: neighbouring channels are a pair."""
    pair = torch.arange(head_dim // 2, device=positions_BT.device, dtype=torch.float32)
    angle = positions_BT.float()[:, :, None, None] * torch.exp(pair * (-math.log(theta) * 2 / head_dim))
    return torch.complex(angle.cos(), angle.sin())


def turn(x_BTHD: Tensor, turns: Tensor) -> Tensor:
    """Turns every pair of channels by its position's angle; gives float32."""
    pairs = torch.view_as_complex(x_BTHD.float().view(*x_BTHD.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


class WindowAttention(nn.Module):
    def __init__(self, config: WindowConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.key_heads, config.head_dim
        self.qkv = nn.Linear(config.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x_MD: Tensor, cache: RingCache, layer: int, plan: RingPlan, turns: Tensor | None) -> Tensor:
        qkv = self.qkv(x_MD).view(*plan.positions_RT.shape, -1, self.head_dim)
        qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        if turns is not None:
            qk = turn(qk, turns)
        q, k = qk.transpose(1, 2).split([self.heads, self.kv_heads], dim=1)
        mixed_RTD = attend_ring(cache, layer, q, k, v.transpose(1, 2), plan)
        return self.out(mixed_RTD.flatten(0, 1).to(x_MD.dtype))


class WindowBlock(nn.Module):
    """Pre-norm attention and feed-forward, over the M = R * T steps of a plan."""

    def __init__(self, config: WindowConfig):
        super().__init__()
        c = config
        self.gated = c.ffn == "silu_gated"
        self.attention_norm = make_norm(c.norm, c.dim, c.norm_eps)
        self.ffn_norm = make_norm(c.norm, c.dim, c.norm_eps)
        self.attention = WindowAttention(c)
        self.up = nn.Linear(c.dim, (1 + self.gated) * c.ffn_dim, bias=False)  # gated: the gate first
        self.down = nn.Linear(c.ffn_dim, c.dim, bias=False)
        self.scaled = c.layer_scale is not None
        if c.layer_scale is not None:
            self.attention_scale = nn.Parameter(torch.full((c.dim,), c.layer_scale))
            self.ffn_scale = nn.Parameter(torch.full((c.dim,), c.layer_scale))

    def forward(self, x_MD: Tensor, cache: RingCache, layer: int, plan: RingPlan, turns: Tensor | None) -> Tensor:
        mixed = self.attention(self.attention_norm(x_MD), cache, layer, plan, turns)
        x_MD = x_MD + (mixed * self.attention_scale if self.scaled else mixed)
        fed = self.feed_forward(self.ffn_norm(x_MD))
        return x_MD + (fed * self.ffn_scale if self.scaled else fed)

    def feed_forward(self, x_MD: Tensor) -> Tensor:
        up = self.up(x_MD)
        if not self.gated:
            return self.down(F.gelu(up))
        gate, up = up.chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class WindowTransformer(nn.Module):
    """A stack of blocks over one ring cache: no embeddings, no final norm."""

    def __init__(self, config: WindowConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(WindowBlock(config) for _ in range(config.layers))

    def init_state(self, slots: int, *, steps: int | None = None) -> RingCache:
        """Streams that have not begun. Memory: 2 * layers * context * key_heads * head_dim numbers a slot.

        Args:
            steps: how long the streams can get at most, to save memory; None: no end.
        """
        c, like = self.config, next(self.parameters())
        capacity = min(c.context + c.chunk - 1, steps or c.context + c.chunk)
        return RingCache.make(
            slots, layers=c.layers, kv_heads=c.key_heads, capacity=capacity, head_dim=c.head_dim, like=like
        )

    def forward(self, x_BTD: Tensor, state: RingCache, live_B: Tensor) -> Tensor:
        """Runs the next T >= 1 steps of each live slot and adds them to `state`; T may exceed the context.

        Gradients flow through the steps of one call; what `state` held before is a constant.

        Returns:
            [B, T, D]; rows that are not live are zeros.
        Raises:
            ShapeError: another width, or no steps.
        """
        c, steps = self.config, x_BTD.shape[1]
        if x_BTD.shape[-1] != c.dim or not steps:
            raise ShapeError(
                f"WindowTransformer: need [B, T, {c.dim}], got {tuple(x_BTD.shape)}. Check the part before"
            )
        frozen = not torch.is_grad_enabled()
        longest = max(c.context, 256)
        if frozen and steps > longest:  # a mask over all would grow with the square of the length
            return torch.cat([self(piece, state, live_B) for piece in x_BTD.split(longest, 1)], 1)
        if not live_B.any():
            return torch.zeros_like(x_BTD)
        plan = plan_ring(state, steps, live_B, context=c.context, frozen=frozen)
        x_RTD = self._run(x_BTD if plan.rows_R is None else x_BTD[plan.rows_R], state, plan)
        return x_RTD if plan.rows_R is None else torch.zeros_like(x_BTD).index_copy_(0, plan.rows_R, x_RTD)

    def step(self, x_BD: Tensor, state: RingCache, live_B: Tensor, *, keys: int) -> Tensor:
        """One step whose shapes depend on no number, so that it can be captured as a graph (`nn.graphs`).

        Args:
            keys: at least as many as the longest stream has steps after this one, or the ring's capacity.
        Returns:
            [B, D]; rows that are not live mean nothing.
        """
        return self._run(x_BD[:, None], state, plan_static(state, live_B, context=self.config.context, keys=keys))[:, 0]

    def _run(self, x_RTD: Tensor, state: RingCache, plan: RingPlan) -> Tensor:
        c = self.config
        angle = None if c.rope_theta is None else turns(plan.positions_RT, c.head_dim, c.rope_theta)
        x_MD = x_RTD.flatten(0, 1)
        for layer, block in enumerate(self.layers):
            x_MD = block(x_MD, state, layer, plan, angle)
        advance(state, plan)
        return x_MD.view(x_RTD.shape)
