"""Connectionist temporal classification: collapsing what was decoded, and aligning what is known.

Source: Graves et al. 2006, "Connectionist Temporal Classification".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from duologue.errors import ShapeError
from duologue.streaming.state import State, write


@dataclass
class CollapseState(State):
    last_B: Tensor  # the last symbol seen, blank included, plus one; 0: none yet


def init_collapse(slots: int, *, device: torch.device | str = "cpu") -> CollapseState:
    """Streams in which no symbol has been seen."""
    return CollapseState(torch.zeros(slots, dtype=torch.int64, device=device))


def collapse(
    ids_BT: Tensor, state: CollapseState, live_B: Tensor, *, blank: int, steps_B: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Merges repeats and drops blanks in the next steps of each stream, across calls.

    Args:
        ids_BT: the best symbol of every step.
        steps_B: how many of the T steps count in each slot. None: all.
    Returns:
        units_BT, moved to the front of each row; counts_B, how many there are (0 in rows that are not live); and
        steps_BT, the step of this call at which each unit began.
    """
    T = ids_BT.shape[1]
    steps_B = torch.full_like(state.last_B, T) if steps_B is None else steps_B
    steps_B = torch.where(live_B, steps_B, 0)
    row_BT = torch.cat([state.last_B[:, None], ids_BT + 1], dim=1)
    counted_BT = torch.arange(T, device=ids_BT.device) < steps_B[:, None]
    keep_BT = counted_BT & (row_BT[:, 1:] != row_BT[:, :-1]) & (ids_BT != blank)
    units_BT, begins_BT = torch.zeros_like(ids_BT), torch.zeros_like(ids_BT)
    slot_N, step_N = keep_BT.nonzero(as_tuple=True)
    place_N = (keep_BT.cumsum(1) - 1)[slot_N, step_N]
    units_BT[slot_N, place_N], begins_BT[slot_N, place_N] = ids_BT[slot_N, step_N], step_N
    write(state.last_B, row_BT.gather(1, steps_B[:, None])[:, 0], live_B)
    return units_BT, keep_BT.sum(1), begins_BT


def align(log_probs_BTV: Tensor, targets_BU: Tensor, steps_B: Tensor, counts_B: Tensor, *, blank: int) -> Tensor:
    """The most likely CTC path that spells the targets (Viterbi), as the step at which each target first appears.

    Args:
        log_probs_BTV: log probabilities; steps beyond steps_B are ignored.
        targets_BU: symbols without blanks; those beyond counts_B are ignored.
    Returns:
        first_BU: the step at which a greedy streaming decoder on this path would emit target u; -1 in the padding,
        and in the whole row where steps_B is too short to spell the targets.
    Raises:
        ShapeError: the rows of the arguments differ, or a count is larger than what was given.
    """
    B, T, _ = log_probs_BTV.shape
    U = targets_BU.shape[1]
    if not len(targets_BU) == len(steps_B) == len(counts_B) == B or steps_B.max() > T or counts_B.max() > U:
        raise ShapeError(
            f"align: {B} rows of {T} steps and {len(targets_BU)} rows of {U} targets do not fit "
            f"steps {steps_B.tolist()} and counts {counts_B.tolist()}"
        )
    path_BT, feasible_B = _best_path(log_probs_BTV.detach().float(), targets_BU, steps_B, counts_B, blank)
    # Target u is state 2u + 1 of the path; its first step is the number of steps that stand before it.
    state_U = 2 * torch.arange(U, device=path_BT.device) + 1
    counted_BT = torch.arange(T, device=path_BT.device) < steps_B[:, None]
    first_BU = ((path_BT[:, :, None] < state_U) & counted_BT[:, :, None]).sum(1)
    real_BU = (torch.arange(U, device=path_BT.device) < counts_B[:, None]) & feasible_B[:, None]
    return torch.where(real_BU, first_BU, -1)


def _best_path(
    log_probs_BTV: Tensor, targets_BU: Tensor, steps_B: Tensor, counts_B: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """The best state of every step (state 2u + 1: target u; even states: blanks), and whether there is a path."""
    B, T, _ = log_probs_BTV.shape
    U, device = targets_BU.shape[1], log_probs_BTV.device
    S = 2 * U + 1
    symbols_BS = torch.full((B, S), blank, dtype=torch.int64, device=device)
    symbols_BS[:, 1::2] = torch.where(torch.arange(U, device=device) < counts_B[:, None], targets_BU, blank)
    may_skip_BS = torch.zeros(B, S, dtype=torch.bool, device=device)
    may_skip_BS[:, 3::2] = symbols_BS[:, 3::2] != symbols_BS[:, 1:-2:2]
    emit_BTS = log_probs_BTV.gather(2, symbols_BS[:, None].expand(-1, T, -1))
    nothing = float("-inf")
    score_BS = torch.full((B, S), nothing, device=device)
    score_BS[:, :2] = emit_BTS[:, 0, :2]
    back_TBS = torch.zeros(T, B, S, dtype=torch.int8, device=device)
    for step in range(1, T):
        one_BS = torch.full_like(score_BS, nothing)
        one_BS[:, 1:] = score_BS[:, :-1]
        two_BS = torch.full_like(score_BS, nothing)
        two_BS[:, 2:] = score_BS[:, :-2]
        two_BS = two_BS.masked_fill(~may_skip_BS, nothing)
        best_BS, back_BS = torch.stack([score_BS, one_BS, two_BS]).max(0)
        going_B1 = (step < steps_B)[:, None]
        score_BS = torch.where(going_B1, best_BS + emit_BTS[:, step], score_BS)
        back_TBS[step] = torch.where(going_B1, back_BS, 0)
    last_B2 = torch.stack([2 * counts_B, (2 * counts_B - 1).clamp(min=0)], dim=1)  # ends in the blank or the target
    end_score_B, choice_B = score_BS.gather(1, last_B2).max(1)
    state_B = last_B2.gather(1, choice_B[:, None])[:, 0]
    path_BT = torch.zeros(B, T, dtype=torch.int64, device=device)
    for step in range(T - 1, -1, -1):
        path_BT[:, step] = state_B
        state_B = state_B - back_TBS[step].gather(1, state_B[:, None])[:, 0]
    return path_BT, end_score_B > nothing
