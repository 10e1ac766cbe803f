"""What the processes of a training run share beside gradients. In one process everything is returned as it is."""

from __future__ import annotations

import torch
from torch import Tensor


def workers() -> int:
    """How many processes train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def summed(x: Tensor) -> Tensor:
    """The sum over all processes, which all must call this; `x` itself is changed."""
    if workers() > 1:
        torch.distributed.all_reduce(x)
    return x


def from_first(x: Tensor) -> Tensor:
    """The first process's tensor in all of them, which all must call this; `x` itself is changed."""
    if workers() > 1:
        x = x.contiguous()
        torch.distributed.broadcast(x, 0)
    return x
