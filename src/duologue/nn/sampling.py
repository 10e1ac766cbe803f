"""Drawing tokens for many slots at once, each with its own temperature, top-k and random numbers.

The random numbers are a function of a slot's seed and of a place that the caller counts: a slot draws the same whoever
else is there, and goes on the same after it was saved and loaded. (SplitMix64, Steele et al. 2014, as the function;
the exponential race, also named the Gumbel trick, instead of a running sum.)
"""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 64  # scores that are looked at together
_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # as signed 64 bits


def uniform(seed_R: Tensor, place_RN: Tensor) -> Tensor:
    """The numbers at some places of every row's stream, float32 within (0, 1), [R, N]."""
    x_RN = _mixed(seed_R[:, None] * _FIRST + 1) + place_RN * _GOLDEN  # neighbouring seeds have unlike streams
    return ((_mixed(x_RN) >> 40 & 0xFFFFFF).float() + 0.5) / 2**24


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ (x >> 30 & 0x3FFFFFFFF)) * _FIRST
    x = (x ^ (x >> 27 & 0x1FFFFFFFFF)) * _SECOND
    return x ^ (x >> 31 & 0x1FFFFFFFF)


def luck(noise_RKN: Tensor, *, temperature_R: Tensor, top_k_R: Tensor) -> Tensor:
    """What is added to the N best scores of a draw before the best of them is taken, of K draws, [R, K, N].

    Args:
        noise_RKN: uniform numbers within (0, 1).
        top_k_R: among so many best ones, at most N and at least 1.
    """
    luck_RKN = (-noise_RKN.log()).log().mul_(-temperature_R[:, None, None])
    place_N = torch.arange(luck_RKN.shape[2], device=luck_RKN.device)
    return luck_RKN.masked_fill_(place_N >= top_k_R[:, None, None], float("-inf"))


def draw(logits_RV: Tensor, luck_RN: Tensor, greedy_R: Tensor | None = None) -> Tensor:
    """One token for every row, [R].

    Args:
        luck_RN: see `luck`.
        greedy_R: bool: rows that take the best token; None: none of them.
    """
    best_RN, ids_RN = best(logits_RV.float(), min(luck_RN.shape[1], logits_RV.shape[1]))
    place_R1 = (best_RN + luck_RN[:, : best_RN.shape[1]]).argmax(1, keepdim=True)
    drawn_R = ids_RN.gather(1, place_R1)[:, 0]
    return drawn_R if greedy_R is None else torch.where(greedy_R, logits_RV.argmax(1), drawn_R)


def best(scores_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores and their places, as `topk` has them, [R, count] both.

    Of a few among many, `topk` takes long on a CPU: first the pieces are found in which they must be.
    """
    rows, total = scores_RV.shape
    pieces = total // PIECE
    if scores_RV.device.type != "cpu" or total % PIECE or pieces < 4 * count:
        return scores_RV.topk(count)
    scores_RPE = scores_RV.view(rows, pieces, PIECE)
    piece_RN = scores_RPE.amax(2).topk(count).indices
    found_RNE = scores_RPE.gather(1, piece_RN[..., None].expand(-1, -1, PIECE))
    best_RN, place_RN = found_RNE.flatten(1).topk(count)
    return best_RN, piece_RN.gather(1, place_RN // PIECE) * PIECE + place_RN % PIECE


def penalise(logits_RV: Tensor, recent_RN: Tensor, penalty_R: Tensor) -> Tensor:
    """Divides the positive scores of recent tokens by the penalty and multiplies the negative ones, each token once.

    Args:
        recent_RN: ids; negative ones count for nothing.
        penalty_R: 1 changes nothing.
    """
    logits_RV = logits_RV.float()
    seen_RV = torch.zeros_like(logits_RV).scatter_add_(1, recent_RN.clamp_min(0), (recent_RN >= 0).float())
    factor_RV = torch.where(logits_RV >= 0, 1 / penalty_R[:, None], penalty_R[:, None])
    return torch.where(seen_RV > 0, logits_RV * factor_RV, logits_RV)


def repeats(said_RN: Tensor, counts_R: Tensor, *, length: int) -> tuple[Tensor, Tensor]:
    """The tokens that would make a row's last `length` tokens such as the row has said before.

    Args:
        said_RN: tokens said so far, of which the first `counts_R` count.
    Returns:
        (row, token) of each.
    """
    before = length - 1  # tokens that have to be the same already
    if said_RN.shape[1] < length:
        nothing = counts_R.new_zeros(0)
        return nothing, nothing
    place_B = torch.arange(before, device=said_RN.device)
    last_RB = said_RN.gather(1, (counts_R[:, None] - before + place_B).clamp_min(0))
    same_RN = (said_RN.unfold(1, before, 1)[:, :-1] == last_RB[:, None]).all(-1)
    follows_N = torch.arange(before, said_RN.shape[1], device=said_RN.device)
    rows, places = (same_RN & (follows_N < counts_R[:, None])).nonzero(as_tuple=True)
    return rows, said_RN[rows, places + before]
