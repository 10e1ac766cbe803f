"""A voice detector without weights: what is loud is speech."""

from __future__ import annotations

import torch

from duologue.audio.vad import VadState


class Loudness:
    def init_state(self, slots: int) -> VadState:
        return VadState(*(torch.zeros(slots, 1) for _ in range(3)))

    def __call__(self, window_BN: torch.Tensor, state: VadState) -> torch.Tensor:
        return (window_BN.abs().amax(1) > 0.01).float()
