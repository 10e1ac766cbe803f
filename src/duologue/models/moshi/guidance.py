"""Guided conversations within one step of `MoshiGenerator`: each has a second row, under the conditions that it is led
away from. The second rows come behind the others, and all go through the model in one call.

A second row's memory is a part of its slot's: where a model has conditions, a slot of the cache has twice as many
layers, and the second row's are behind. So a slot is reset, kept and moved as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duologue.models.moshi.conditions import Conditions
from duologue.nn.ring import RingCache


@dataclass(frozen=True)
class Pairs:
    """Which of the R rows of a step have a second one; with those there are N rows."""

    which_G: Tensor
    coefficient_G1: Tensor

    def mix(self, scores_NV: Tensor) -> Tensor:
        """The scores to draw from, [R, V], in float32."""
        rows = len(scores_NV) - len(self.which_G)
        scores_RV, against_GV = scores_NV.float().split([rows, len(self.which_G)])
        led_GV = against_GV + (scores_RV[self.which_G] - against_GV) * self.coefficient_G1
        return scores_RV.index_copy(0, self.which_G, led_GV)

    def twice(self, tokens_R: Tensor) -> Tensor:
        """What both rows of a pair go on from, [N]."""
        return torch.cat([tokens_R, tokens_R[self.which_G]])

    def memory(self, cache: RingCache) -> RingCache:
        """The cache with a slot for each row: of slot s those of its first row, 2 s, and of its second, 2 s + 1. Shares
        the memory, but not the offsets."""
        rows, layers = 2 * len(cache.k_BLHTD), cache.k_BLHTD.shape[1] // 2
        k_BLHTD, v_BLHTD = (kept.view(rows, layers, *kept.shape[2:]) for kept in (cache.k_BLHTD, cache.v_BLHTD))
        return RingCache(k_BLHTD, v_BLHTD, cache.offset_B.repeat_interleave(2))

    def slots(self, slots_R: Tensor) -> Tensor:
        """The slots of the rows in `memory`, [N]."""
        return torch.cat([2 * slots_R, 2 * slots_R[self.which_G] + 1])


def with_second_rows(cache: RingCache) -> RingCache:
    """A cache that has not begun, with the memory of a second row in each slot."""
    slots, layers, *rest = cache.k_BLHTD.shape
    k_BLHTD = cache.k_BLHTD.new_zeros(slots, 2 * layers, *rest)
    return RingCache(k_BLHTD, torch.zeros_like(k_BLHTD), cache.offset_B)


def apply_conditions(conditions: Conditions, numbers_RG: Tensor, x_RD: Tensor) -> tuple[Tensor, Pairs | None]:
    """Adds its conditions to the input of each row, and a second row for each that is guided, [N, D].

    Args:
        numbers_RG: see `Conditions.numbers`.
    """
    ids_RN, against_RN = numbers_RG[:, 2:].long().chunk(2, dim=1)
    coefficient_R = numbers_RG[:, 1]
    which_G = (coefficient_R != 1).nonzero()[:, 0]
    if not len(which_G):
        return x_RD + conditions(ids_RN).to(x_RD.dtype), None
    x_ND = torch.cat([x_RD, x_RD[which_G]])
    x_ND = x_ND + conditions(torch.cat([ids_RN, against_RN[which_G]])).to(x_RD.dtype)
    return x_ND, Pairs(which_G, coefficient_R[which_G, None])
