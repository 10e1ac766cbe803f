"""Moshi's step as two calls whose shapes depend on no number: on a GPU each is captured once as a graph and replayed.

Without it a step launches many hundred small kernels, most of them in the depth transformer. Every slot is a row, live
or not; the ring cache is looked at up to the next of a few lengths, each of which has a graph of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duologue.models.moshi.config import UNGENERATED
from duologue.models.moshi.model import MoshiModel
from duologue.nn.graphs import Graphs
from duologue.nn.ring import RingCache
from duologue.nn.sampling import draw

_KEYS = 256  # steps of the shortest length that is looked at; each next one is twice as long


@dataclass(frozen=True)
class AudioDraws:
    """How rows draw their codebooks, N candidates each; see `nn.sampling`."""

    luck_RKN: Tensor
    greedy_R: Tensor


class FixedStep:
    """The temporal and the depth transformer of one model, called for all slots of a state."""

    def __init__(self, model: MoshiModel):
        self.model, self._graphs = model, Graphs()

    def think(self, input_RK: Tensor, cache: RingCache, live_B: Tensor, rows_R: Tensor) -> Tensor:
        """The temporal transformer's output of the live slots, [R, D]; their places in the cache move on."""
        keys = self._keys(cache)
        inputs = [_spread(input_RK, rows_R, len(live_B)), live_B]
        key = ("think", keys, cache.k_BLHTD.data_ptr(), len(live_B))
        (z_BD,) = self._graphs.run(
            key,
            lambda input_BK, live_B: (self.temporal(input_BK, cache, live_B, keys=keys),),
            inputs,
            idle=[inputs[0], torch.zeros_like(live_B)],
        )
        return z_BD[rows_R]

    def say(
        self, z_RD: Tensor, text_R: Tensor, given_RK: Tensor, draws: AudioDraws, rows_R: Tensor, slots: int
    ) -> Tensor:
        """The codebooks of one frame: what is given, the rest drawn, [R, own_codebooks].

        Args:
            given_RK: the codebooks, UNGENERATED where they are to be drawn.
        """
        inputs = [_spread(value, rows_R, slots) for value in (z_RD, text_R, given_RK, draws.luck_RKN, draws.greedy_R)]
        key = ("say", slots, draws.luck_RKN.shape[2])
        (codes_BK,) = self._graphs.run(key, lambda *values: (self.depth(*values),), inputs, idle=inputs)
        return codes_BK[rows_R]

    def temporal(self, input_BK: Tensor, cache: RingCache, live_B: Tensor, *, keys: int) -> Tensor:
        """One step of all slots, [B, D]."""
        return self.model.norm(self.model.transformer.step(self.model.embed(input_BK), cache, live_B, keys=keys))

    def depth(self, z_BD: Tensor, text_B: Tensor, given_BK: Tensor, luck_BKN: Tensor, greedy_B: Tensor) -> Tensor:
        """One frame of all slots, [B, own_codebooks]."""
        assert self.model.depth is not None

        def choose(step: int, scores_BV: Tensor) -> Tensor:
            drawn_B = draw(scores_BV, luck_BKN[:, step], greedy_B)
            return torch.where(given_BK[:, step] == UNGENERATED, drawn_B, given_BK[:, step])

        return self.model.depth.generate(z_BD, text_B, given_BK.shape[1], choose)

    @staticmethod
    def _keys(cache: RingCache) -> int:
        """How many places of the ring are looked at in the next step."""
        capacity, keys = cache.k_BLHTD.shape[3], _KEYS
        longest = int(cache.offset_B.max()) + 1
        while keys < longest:
            keys *= 2
        return min(keys, capacity)


def _spread(value_R: Tensor, rows_R: Tensor, slots: int) -> Tensor:
    """Rows at the places of their slots; others are ones, with which everything can be computed."""
    if len(rows_R) == slots:
        return value_R
    return value_R.new_ones(slots, *value_R.shape[1:]).index_copy_(0, rows_R, value_R)
