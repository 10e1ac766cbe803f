"""Token embeddings where a token may be missing, as Moshi's streams need them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duologue.nn.init import embedding


class TokenEmbedding(nn.Module):
    """One stream of tokens; negative ids give zeros.

    With `second_stream` an id is first + rows * (second + 1), and each of the two has a projection of its own.
    """

    def __init__(self, rows: int, dim: int, *, low_rank: int | None = None, second_stream: bool = False):
        super().__init__()
        width = low_rank or dim
        self.table = embedding(rows, width)
        self.first = self.second = self.up = None
        if second_stream:
            self.first, self.second = nn.Linear(width, dim, bias=False), nn.Linear(width, dim, bias=False)
        if low_rank is not None:
            self.up = nn.Linear(low_rank, dim, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        if self.first is None or self.second is None:
            x = masked(self.table(ids.clamp_min(0)), ids >= 0)
            return x if self.up is None else self.up(x)
        known, rows = ids.clamp_min(0), self.table.num_embeddings
        first, second = known % rows, known // rows - 1
        x = self.first(self.table(first)) + masked(self.second(self.table(second.clamp_min(0))), second >= 0)
        return masked(x, ids >= 0)


class SummedEmbedding(nn.Module):
    """Streams with a table each, added up; the tables are one matrix. Negative ids add nothing."""

    def __init__(self, streams: int, rows: int, dim: int):
        super().__init__()
        self.streams, self.rows = streams, rows
        self.table = embedding(streams * rows, dim)

    def forward(self, ids_BTK: Tensor) -> Tensor:
        first_K = torch.arange(0, self.streams * self.rows, self.rows, device=ids_BTK.device)
        x_BTKD = self.table(ids_BTK.clamp_min(0) + first_K)
        return (x_BTKD * (ids_BTK >= 0)[..., None]).sum(-2)


def masked(x: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep[..., None], x, 0)
