"""Lets a vocoder speak, in any chunks: what the tests of all vocoders share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from conformance import Case
from torch import Tensor


@dataclass(frozen=True)
class Said:
    """What came of it."""

    audio: list[Tensor]  # of each slot
    sizes: list[list[int]]  # samples that each chunk gave to each slot
    state: Any


def say(vocoder: Any, units_BT: Tensor, cut: Sequence[int], prosody_BTP: Tensor | None = None) -> Said:
    """Says the units from a fresh state, every slot live, the last chunk the final one."""
    slots, begin, sizes = len(units_BT), 0, []
    state, all_B = vocoder.init_state(slots), torch.ones(slots, dtype=torch.bool)
    pieces: list[list[Tensor]] = [[] for _ in range(slots)]
    for number, count in enumerate(cut, start=1):
        part, final_B = slice(begin, begin + count), all_B & (number == len(cut))
        prosody = None if prosody_BTP is None else prosody_BTP[:, part]
        audio_BN, samples_B = vocoder(units_BT[:, part], torch.full((slots,), count), state, all_B, final_B, prosody)
        for slot, samples in enumerate(samples_B.tolist()):
            pieces[slot].append(audio_BN[slot, :samples])
        sizes.append(samples_B.tolist())
        begin += count
    return Said([torch.cat(rows) for rows in pieces], sizes, state)


def vocoder_case(
    vocoder: Any, units_BT: Tensor, cuts: Sequence[Sequence[int]], prosody_BTP: Tensor | None = None
) -> Case:
    """A vocoder under the streaming contract; prosody, if any, travels beside the units as further columns."""
    inputs = units_BT if prosody_BTP is None else torch.cat([units_BT[..., None].float(), prosody_BTP], dim=-1)

    def call(piece: Tensor, state: Any, live_B: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        slots, steps = piece.shape[:2]
        units, prosody = (piece, None) if prosody_BTP is None else (piece[..., 0].long(), piece[..., 1:])
        return vocoder(units, torch.full((slots,), steps), state, live_B, torch.full((slots,), last), prosody)

    return Case(vocoder.init_state, call, inputs, cuts)
