"""Several losses of one sound, each with a fixed share in the gradient, however large they are.

Source: the balancer of EnCodec (Defossez et al. 2022, arXiv:2210.13438, section 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from duologue.nn.workers import summed, workers


class Balance(nn.Module):
    """Remembers how strong each loss's gradient usually is."""

    norms: Tensor
    seen: Tensor

    def __init__(self, shares: Mapping[str, float], decay: float = 0.99):
        """
        Args:
            shares: of each loss, above 0; they are divided by their sum.
        """
        super().__init__()
        self.decay, total = decay, sum(shares.values())
        self.shares = {name: share / total for name, share in shares.items()}
        self.register_buffer("norms", torch.zeros(len(shares)))  # moving averages, without their first steps' bias
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, losses: Mapping[str, Tensor], sound_BN: Tensor) -> Tensor:
        """The gradient [B, N] that `sound_BN` is to get of all losses together, a mean norm of 1 a row, over B.

        The losses' own parameters get no gradient. Their graphs are kept.
        """
        found = [torch.autograd.grad(losses[name], sound_BN, retain_graph=True)[0].float() for name in self.shares]
        norms_L = torch.stack([gradient_BN.norm(dim=1).mean() for gradient_BN in found])
        with torch.no_grad():
            self.norms.lerp_(summed(norms_L) / workers(), 1 - self.decay)
            self.seen += 1
            usual_L = self.norms / (1 - self.decay**self.seen)
            scales_L = torch.tensor(list(self.shares.values()), device=usual_L.device) / usual_L.clamp(min=1e-12)
        return torch.stack([scale * gradient for scale, gradient in zip(scales_L, found, strict=True)]).sum(0) / len(
            sound_BN
        )
