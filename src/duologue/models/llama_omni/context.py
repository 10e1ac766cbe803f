"""What a conversation keeps of its past in the language model's cache: instructions for good, turns while they fit."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from duologue.errors import ShapeError
from duologue.nn.attention import KVCache, rotate
from duologue.nn.transformer import Transformer


def make_room(
    llm: Transformer, cache: KVCache, live_B: Tensor, need: int, *, kept_B: Tensor, places: Iterable[Tensor]
) -> None:
    """Drops the oldest turns of slots that could not hold `need` positions more: half of them at once, so that it is
    seldom to be done.

    Args:
        kept_B: positions at the front that stay.
        places: positions of the cache that are remembered, [B] each; they move with what they point at.
    Raises:
        ShapeError: it would not fit even then.
    """
    places, capacity = list(places), cache.k_BLHTD.shape[3]
    for slot in (live_B & (cache.length_B + need > capacity)).nonzero()[:, 0].tolist():
        kept, length = int(kept_B[slot]), int(cache.length_B[slot])
        drop = min(length - kept, max(length + need - capacity, (capacity - kept) // 2))
        if drop <= 0:
            raise ShapeError(
                f"LlamaOmni: {need} positions, an answer's among them, do not fit into a context of {capacity}; "
                "set a larger context or ask in shorter turns"
            )
        forget(llm, cache, slot, kept, drop)
        for places_B in places:
            places_B[slot] = max(kept, int(places_B[slot]) - drop)


def forget(llm: Transformer, cache: KVCache, slot: int, begin: int, count: int) -> None:
    """Takes `count` positions out of a slot; the keys behind them are turned back to their new places."""
    length = int(cache.length_B[slot])
    moved, there = slice(begin + count, length), slice(begin, length - count)
    cos, sin = llm.blocks.rotary(torch.full((1, 1), -count))
    keys = rotate(cache.k_BLHTD[slot, :, :, moved].clone(), cos[0], sin[0])
    cache.k_BLHTD[slot, :, :, there] = keys
    cache.v_BLHTD[slot, :, :, there] = cache.v_BLHTD[slot, :, :, moved].clone()
    cache.length_B[slot] = max(begin, length - count)


def join(first_BTD: Tensor, first_B: Tensor, second_BTD: Tensor, second_B: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's first steps, then its second ones: steps [B, T, D], and how many of them count."""
    joined_BTD = torch.cat([first_BTD.to(second_BTD.dtype), torch.zeros_like(second_BTD)], dim=1)
    row_N, step_N = (torch.arange(second_BTD.shape[1]) < second_B[:, None]).nonzero(as_tuple=True)
    joined_BTD[row_N, first_B[row_N] + step_N] = second_BTD[row_N, step_N]
    return joined_BTD, first_B + second_B
