"""Attention with grouped queries, rotary positions and a static key-value cache per slot.

Sources: RoPE (Su et al. 2021, arXiv:2104.09864), GQA (Ainslie et al. 2023, arXiv:2305.13245), the llama3 scaling of
RoPE (Llama 3.1's released configuration).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.streaming.state import State


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3.1's stretching of low rotary frequencies (`rope_type: llama3`)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192  # positions

    def __post_init__(self):
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(f"rope_scaling: high_freq_factor must exceed low_freq_factor, got {self}")


class Rotary(nn.Module):
    """Rotary position embedding in the half-split layout (first half with second half)."""

    def __init__(self, head_dim: int, *, theta: float, scaling: RopeScaling | None = None):
        super().__init__()
        self.head_dim, self.theta, self.scaling = head_dim, theta, scaling

    def frequencies(self, device: torch.device) -> Tensor:
        """Angular step of each pair, radians a position, [head_dim / 2]."""
        steps = torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32)
        freq = 1.0 / self.theta ** (steps / self.head_dim)
        if self.scaling is None:
            return freq
        scaling, wavelength = self.scaling, 2 * math.pi / freq
        smooth = (scaling.original_max_position / wavelength - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        smooth = smooth.clamp(0, 1)
        return (1 - smooth) * freq / scaling.factor + smooth * freq

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine for each position, each [B, 1, T, head_dim]."""
        angle_BTD = positions_BT[..., None].float() * self.frequencies(positions_BT.device)
        angle_BTD = torch.cat([angle_BTD, angle_BTD], dim=-1)[:, None]
        return angle_BTD.cos(), angle_BTD.sin()


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns every pair of channels by its position's angle."""
    first, second = x_BHTD.chunk(2, dim=-1)
    return (x_BHTD * cos + torch.cat([-second, first], dim=-1) * sin).to(x_BHTD.dtype)


@dataclass
class KVCache(State):
    """Keys and values of a whole stack of L layers, with room for T positions a slot."""

    k_BLHTD: Tensor
    v_BLHTD: Tensor
    length_B: Tensor  # positions filled, int64

    def slot(self, index: int) -> KVCache:
        """One slot as a cache of its own, the same memory."""
        one = slice(index, index + 1)
        return KVCache(self.k_BLHTD[one], self.v_BLHTD[one], self.length_B[one])

    @staticmethod
    def make(slots: int, *, layers: int, kv_heads: int, capacity: int, head_dim: int, like: Tensor) -> KVCache:
        k = like.new_zeros(slots, layers, kv_heads, capacity, head_dim)
        return KVCache(k, torch.zeros_like(k), torch.zeros(slots, dtype=torch.int64, device=like.device))


@dataclass(frozen=True)
class Span:
    """Where one call's steps go in a cache, worked out once for all layers."""

    positions_BT: Tensor
    slot_N: Tensor  # of the steps that count: slot, step within the call, position in the cache
    step_N: Tensor
    position_N: Tensor
    keys: int  # positions of the cache that are in use after this call
    mask_BTK: Tensor | None  # True: may look; None: everything in use may be looked at
    whole: bool  # every step of every slot counts, and all slots start at the same position


def span(cache: KVCache, steps: int, live_B: Tensor, steps_B: Tensor | None = None) -> Span:
    """Plans a call that adds `steps_B` (default: all `steps`) positions to every live slot.

    Raises:
        ShapeError: the cache has no room left.
    """
    device, capacity = cache.length_B.device, cache.k_BLHTD.shape[3]
    counts_B = torch.full_like(cache.length_B, steps) if steps_B is None else steps_B
    counts_B = torch.where(live_B, counts_B, 0)
    new_length_B = cache.length_B + counts_B
    keys = int(new_length_B.max())
    if keys > capacity:
        raise ShapeError(
            f"KVCache: need room for {keys} positions, have {capacity}. Make the state with a larger capacity, "
            "reset the slot, or truncate its history."
        )
    step_T = torch.arange(steps, device=device)
    positions_BT = cache.length_B[:, None] + step_T
    begin = int(cache.length_B[0])
    whole = bool((counts_B == steps).all() and (cache.length_B == begin).all())
    mask_BTK = None
    if steps > 1 or not whole:
        mask_BTK = torch.arange(keys, device=device) <= positions_BT[..., None]
    slot_N, step_N = (step_T < counts_B[:, None]).nonzero(as_tuple=True)
    return Span(positions_BT, slot_N, step_N, positions_BT[slot_N, step_N], keys, mask_BTK, whole)


@dataclass(frozen=True)
class Part:
    """Some rows of a call, and the slots of the cache that they belong to."""

    rows: slice
    cache: KVCache
    plan: Span


_FEW = 16  # slots up to which one after another is faster than padding them to the longest


def parts(
    cache: KVCache, steps: int, live_B: Tensor, steps_B: Tensor | None = None
) -> tuple[list[Part], Tensor | None]:
    """Plans a call like `span`, so that slots without steps cost nothing and no slot pays for another's length.

    Returns:
        The parts, and the slots that are the call's rows; None: all of them.
    Raises:
        ShapeError: the cache has no room left.
    """
    busy_B = live_B if steps_B is None else live_B & (steps_B > 0)
    alike = bool(busy_B.all()) and steps_B is None and bool((cache.length_B == cache.length_B[0]).all())
    count = int(busy_B.sum())
    if alike or count == 0 or count > _FEW or torch.is_grad_enabled():
        return [Part(slice(None), cache, span(cache, steps, live_B, steps_B))], None
    found = []
    for row, slot in enumerate(busy_B.nonzero()[:, 0].tolist()):
        one = cache.slot(slot)
        plan = span(one, steps, live_B[slot : slot + 1], None if steps_B is None else steps_B[slot : slot + 1])
        found.append(Part(slice(row, row + 1), one, plan))
    return found, None if count == len(live_B) else busy_B.nonzero()[:, 0]


def positions(parts: list[Part]) -> Tensor:
    """Where the steps of each row stand, [B, T]."""
    return torch.cat([part.plan.positions_BT for part in parts])


def advance(parts: list[Part]) -> None:
    """Moves each slot's length past the steps that were added. Call once, after the last layer."""
    for part in parts:
        slot_N = part.plan.slot_N
        part.cache.length_B.index_add_(0, slot_N, torch.ones_like(slot_N))


def extend(kept_BLHTD: Tensor, new_BHTD: Tensor, layer: int, plan: Span) -> Tensor:
    """Writes the planned steps into layer `layer` of a cache, in place, and gives that layer's positions in use.

    Gradients flow through the new steps; what was in the cache before is a constant.
    """
    steps = new_BHTD.shape[2]
    with torch.no_grad():
        if plan.whole:
            kept_BLHTD[:, layer, :, plan.keys - steps : plan.keys] = new_BHTD
        else:
            new_NHD = new_BHTD[plan.slot_N, :, plan.step_N]
            kept_BLHTD[plan.slot_N, layer, :, plan.position_N] = new_NHD.to(kept_BLHTD.dtype)
    if new_BHTD.requires_grad and plan.whole and plan.keys == steps:
        return new_BHTD  # training: one chunk from a fresh state
    used_BHTD = kept_BLHTD[:, layer, :, : plan.keys]
    if new_BHTD.requires_grad:
        used_BHTD = used_BHTD.to(new_BHTD.dtype, copy=True)
        used_BHTD[plan.slot_N, :, plan.position_N] = new_BHTD[plan.slot_N, :, plan.step_N]
    return used_BHTD


def attend(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask_BTK: Tensor | None = None) -> Tensor:
    """Softmax attention; query heads may be a multiple of the key heads.

    Args:
        mask_BTK: True where a query may look. None: everywhere.
    Returns:
        [B, T, H * D].
    """
    B, H, T, D = q_BHTD.shape
    group = H // k_BHTD.shape[1]
    if T == 1 and group == 1 and mask_BTK is None:  # a step of a stream: as few calls as can be
        return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD).reshape(B, 1, H * D)
    mask = None if mask_BTK is None else mask_BTK[:, None]
    if group > 1:  # the queries that share a key head become steps of it: no copy of the keys
        q_BHTD = q_BHTD.reshape(B, H // group, group * T, D)
        mask = None if mask is None else mask.repeat(1, 1, group, 1)
    out = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=mask)
    return out.reshape(B, H, T, D).transpose(1, 2).reshape(B, T, H * D)


class SelfAttention(nn.Module):
    """Causal self-attention over a slot's whole past, kept in a `KVCache`."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        qkv_bias: bool = False,
        out_bias: bool = False,
        qk_norm_eps: float | None = None,
    ):
        super().__init__()
        if heads % kv_heads:
            raise ConfigError(f"SelfAttention: kv_heads must divide heads, got {kv_heads} and {heads}")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * head_dim, bias=qkv_bias)
        self.out = nn.Linear(heads * head_dim, dim, bias=out_bias)
        norm = qk_norm_eps is not None
        self.q_norm = nn.RMSNorm(head_dim, eps=qk_norm_eps) if norm else nn.Identity()
        self.k_norm = nn.RMSNorm(head_dim, eps=qk_norm_eps) if norm else nn.Identity()

    def project(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, T, head_dim], positions applied."""
        B, T, _ = x_BTD.shape
        qkv = self.qkv(x_BTD).view(B, T, self.heads + 2 * self.kv_heads, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v

    def forward(
        self, x_BTD: Tensor, parts: list[Part], layer: int, rotary: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Adds the planned steps to layer `layer` of the cache and attends. The caller calls `advance` at the end."""
        q, k, v = self.project(x_BTD, rotary)
        mixed = []
        for part in parts:
            keys = extend(part.cache.k_BLHTD, k[part.rows], layer, part.plan)
            values = extend(part.cache.v_BLHTD, v[part.rows], layer, part.plan)
            mixed.append(attend(q[part.rows], keys.to(q.dtype), values.to(q.dtype), part.plan.mask_BTK))
        return self.out(torch.cat(mixed) if len(mixed) > 1 else mixed[0])


@dataclass
class Memory(State):
    """What a decoder looks at: keys and values of L layers over an encoded sequence of up to T steps."""

    k_BLHTD: Tensor
    v_BLHTD: Tensor
    length_B: Tensor


class CrossAttention(nn.Module):
    """Attention from a decoder's steps to an encoded sequence."""

    def __init__(self, dim: int, *, heads: int, memory_dim: int | None = None):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(memory_dim or dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def remember(self, encoded_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of an encoded sequence, each [B, heads, T, head_dim]."""
        B, T, _ = encoded_BTD.shape
        kv = self.kv(encoded_BTD).view(B, T, 2 * self.heads, -1).transpose(1, 2)
        k, v = kv.chunk(2, dim=1)
        return k, v

    def forward(self, x_BTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask_BTK: Tensor | None = None) -> Tensor:
        B, T, _ = x_BTD.shape
        q = self.q(x_BTD).view(B, T, self.heads, -1).transpose(1, 2)
        return self.out(attend(q, k_BHTD, v_BHTD, mask_BTK))
