"""A key-value cache that is a ring: a session of any length in the memory of its last steps.

Slots stand at different positions. What a call needs to know about that is worked out once, in a `RingPlan`, for all
layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from duologue.nn.attention import attend
from duologue.streaming.state import State

_CALL = 256  # a call of attention costs about as much as looking at this many keys


@dataclass
class RingCache(State):
    """Keys and values of a stack of L layers: step p of a stream stands at place p % T."""

    k_BLHTD: Tensor
    v_BLHTD: Tensor
    offset_B: Tensor  # steps since the stream began, int64

    @staticmethod
    def make(slots: int, *, layers: int, kv_heads: int, capacity: int, head_dim: int, like: Tensor) -> RingCache:
        # With half-precision keys torch's attention of a single step takes 2 to 5 times as long on a CPU.
        dtype = torch.float32 if like.device.type == "cpu" else like.dtype
        k = like.new_zeros(slots, layers, kv_heads, capacity, head_dim, dtype=dtype)
        return RingCache(k, torch.zeros_like(k), torch.zeros(slots, dtype=torch.int64, device=like.device))


@dataclass(frozen=True)
class Run:
    """Neighbouring slots that attend together."""

    rows: slice  # of the call
    slots: slice  # of the cache
    keys: int  # places of the ring that are looked at
    mask_BTK: Tensor | None  # added to the scores; None: everything may be looked at


class _Single(NamedTuple):
    """One step of one slot in one layer: where its key and value go, and all that is looked at, [1, H, T, D]."""

    k_at: Tensor
    v_at: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class RingPlan:
    """Where one call's steps go and what they may look at."""

    rows_R: Tensor | None  # the slots that are the call's rows; None: all of them
    positions_RT: Tensor
    runs: list[Run]
    in_place: bool  # the new steps are written first and looked up in the ring, else looked at beside it
    place_N: Tensor  # where layer 0's steps go, in units of one head's key
    layer_stride: int  # from there to the next layer
    kept: int  # how many of the call's last steps are written
    live_N: Tensor | None = None  # bool, [N, 1]: which of `place_N` are written, where every slot is a row; None: all
    single: list[_Single] | None = None  # of each layer, where the call is one step of one slot


def plan_ring(cache: RingCache, steps: int, live_B: Tensor, *, context: int, frozen: bool = True) -> RingPlan:
    """Plans a call that adds `steps` to every live slot, each seeing itself and the `context` - 1 steps before it.

    Args:
        frozen: no gradient is wanted, so the new steps may be looked up in the ring.
    """
    slots, layers, heads, capacity, _ = cache.k_BLHTD.shape
    device, dtype = cache.offset_B.device, cache.k_BLHTD.dtype
    chosen = [slot for slot, live in enumerate(live_B.tolist()) if live]
    rows_R = None if len(chosen) == slots else torch.tensor(chosen, dtype=torch.int64, device=device)
    offset_R = cache.offset_B if rows_R is None else cache.offset_B[rows_R]
    positions_RT = offset_R[:, None] + torch.arange(steps, device=device)
    in_place = frozen and steps <= capacity - context + 1
    offsets = offset_R.tolist()
    filled = [min(offset + steps * in_place, capacity) for offset in offsets]

    runs = []
    for first, last in _neighbours(chosen, filled):
        rows, keys = slice(first, last), max(filled[first:last])
        exact = in_place and steps == 1 and keys <= context and min(filled[first:last]) == keys
        mask = None if exact else _mask(positions_RT[rows], keys, capacity, context, in_place, dtype)
        runs.append(Run(rows, slice(chosen[first], chosen[last - 1] + 1), keys, mask))

    single = None
    if in_place and steps == 1 and len(chosen) == 1:
        single = _one_step(cache, chosen[0], filled[0], offsets[0] % capacity)
    kept = min(steps, capacity)
    slot_R = torch.arange(slots, device=device) if rows_R is None else rows_R
    head_RH = slot_R[:, None] * (layers * heads) + torch.arange(heads, device=device)
    place_N = (head_RH[:, :, None] * capacity + positions_RT[:, None, steps - kept :] % capacity).flatten()
    return RingPlan(rows_R, positions_RT, runs, in_place, place_N, heads * capacity, kept, single=single)


def plan_static(cache: RingCache, live_B: Tensor, *, context: int, keys: int) -> RingPlan:
    """Plans a call of one step in which every slot is a row, whether live or not: its shapes depend on no number.

    Args:
        keys: places of the ring that are looked at; at least as many as the longest stream fills after this step.
    """
    slots, layers, heads, capacity, _ = cache.k_BLHTD.shape
    device, positions_BT = cache.offset_B.device, cache.offset_B[:, None].clone()
    mask_BTK = _mask(positions_BT, keys, capacity, context, True, cache.k_BLHTD.dtype)
    everyone = slice(0, slots)
    head_BH = torch.arange(slots, device=device)[:, None] * (layers * heads) + torch.arange(heads, device=device)
    place_N = (head_BH * capacity + positions_BT % capacity).flatten()
    live_N = live_B[:, None].expand(-1, heads).reshape(-1, 1)
    runs = [Run(everyone, everyone, keys, mask_BTK)]
    return RingPlan(None, positions_BT, runs, True, place_N, heads * capacity, 1, live_N)


def attend_ring(cache: RingCache, layer: int, q_RHTD: Tensor, k_RHTD: Tensor, v_RHTD: Tensor, plan: RingPlan) -> Tensor:
    """Adds the call's steps to one layer of the cache, in place, and attends. The caller calls `advance` at the end.

    Returns:
        [R, T, H * D], in the type of the cache.
    """
    kept = cache.k_BLHTD.dtype
    if plan.single is not None:  # as few calls as can be
        one = plan.single[layer]
        one.k_at.copy_(k_RHTD)
        one.v_at.copy_(v_RHTD)
        return attend(q_RHTD.to(kept), one.k, one.v, plan.runs[0].mask_BTK)
    q_RHTD, k_RHTD, v_RHTD = q_RHTD.to(kept), k_RHTD.to(kept), v_RHTD.to(kept)
    if plan.in_place:
        _write(cache, layer, k_RHTD, v_RHTD, plan)
    mixed = []
    for run in plan.runs:
        k = cache.k_BLHTD[run.slots, layer, :, : run.keys]
        v = cache.v_BLHTD[run.slots, layer, :, : run.keys]
        if not plan.in_place:
            k, v = (torch.cat([old, new[run.rows]], 2) for old, new in ((k, k_RHTD), (v, v_RHTD)))
        mixed.append(attend(q_RHTD[run.rows], k, v, run.mask_BTK))
    if not plan.in_place:
        _write(cache, layer, k_RHTD, v_RHTD, plan)
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def advance(cache: RingCache, plan: RingPlan) -> None:
    """Moves the live slots past the steps that were added. Call once, after the last layer."""
    steps = plan.positions_RT.shape[1]
    if plan.live_N is not None:
        cache.offset_B += plan.live_N.view(len(cache.offset_B), -1)[:, 0] * steps
    elif plan.rows_R is None:
        cache.offset_B += steps
    else:
        cache.offset_B[plan.rows_R] += steps


def _one_step(cache: RingCache, slot: int, keys: int, place: int) -> list[_Single]:
    k, v, one = cache.k_BLHTD[slot : slot + 1], cache.v_BLHTD[slot : slot + 1], slice(place, place + 1)
    views = (k[..., one, :], v[..., one, :], k[..., :keys, :], v[..., :keys, :])
    return [_Single(*each) for each in zip(*(view.unbind(1) for view in views), strict=True)]


def _write(cache: RingCache, layer: int, k_RHTD: Tensor, v_RHTD: Tensor, plan: RingPlan) -> None:
    place_N = plan.place_N + layer * plan.layer_stride
    for kept, new_RHTD in ((cache.k_BLHTD, k_RHTD), (cache.v_BLHTD, v_RHTD)):
        dim = kept.shape[-1]
        last_RHTD = new_RHTD.detach() if new_RHTD.shape[2] == plan.kept else new_RHTD.detach()[:, :, -plan.kept :]
        new_ND, flat = last_RHTD.reshape(-1, dim), kept.view(-1, dim)
        if plan.live_N is not None:
            new_ND = torch.where(plan.live_N, new_ND, flat[place_N])
        flat.index_copy_(0, place_N, new_ND)


def _neighbours(slots: list[int], filled: list[int]) -> list[tuple[int, int]]:
    """Cuts the rows into runs of neighbouring slots, such that padding to the longest costs less than another call."""
    runs: list[tuple[int, int]] = []
    for row, keys in enumerate(filled):
        if runs and slots[row] == slots[row - 1] + 1:
            first = runs[-1][0]
            longest, count = max(filled[first:row]), row - first
            padding = max(longest, keys) * (count + 1) - longest * count - keys
            if padding <= _CALL:
                runs[-1] = (first, row + 1)
                continue
        runs.append((row, row + 1))
    return runs


def _mask(positions_RT: Tensor, keys: int, capacity: int, context: int, in_place: bool, dtype: torch.dtype) -> Tensor:
    """What each step may look at, [R, T, K]: the ring's first places, then, if not in place, the call's own steps."""
    last_R1 = positions_RT[:, -1:] if in_place else positions_RT[:, :1] - 1
    place_K = torch.arange(keys, device=positions_RT.device)
    held_RK = last_R1 - (last_R1 - place_K) % capacity  # which step stands at each place
    if not in_place:
        held_RK = torch.cat([held_RK, positions_RT], 1)
    age_RTK = positions_RT[:, :, None] - held_RK[:, None]
    seen_RTK = (age_RTK >= 0) & (age_RTK < context) & (held_RK[:, None] >= 0)
    return torch.zeros(seen_RTK.shape, dtype=dtype, device=seen_RTK.device).masked_fill_(~seen_RTK, float("-inf"))
