"""Vocoding in chunks that carry their context, so that any chunking gives the whole's waveform.

A vocoder that looks a finite way around itself is run again over a window: the units whose samples are next, and as
much on either side as they can see. What cannot be settled yet is held back. The published algorithm of LLaMA-Omni
(arXiv:2409.06666), each chunk on its own and with audible seams, is kept as `independent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from duologue.errors import ShapeError
from duologue.streaming.state import State


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far a vocoder looks around itself."""

    before: int  # frames that a frame's samples depend on, on either side
    after: int
    neighbours: int = 0  # units, on either side, that a unit's length depends on

    @property
    def capacity(self) -> int:
        """The most units that are kept between two calls, each being a frame long or longer."""
        return self.before + self.after + 2 * self.neighbours + 1


class Renderer(Protocol):
    """A vocoder without memory. One stream at a time; a frame is `hop` samples."""

    hop: int
    num_units: int
    reach: Reach

    def frames(self, units_T: Tensor, prosody_TP: Tensor | None) -> Tensor:
        """The length of each unit in frames, int64, at least 1."""
        ...

    def render(self, units_T: Tensor, frames_T: Tensor, prosody_TP: Tensor | None) -> Tensor:
        """The waveform of the window, hop * sum(frames_T) samples; what lies outside the window counts as silence."""
        ...


@dataclass
class ChunkState(State):
    """The window of each slot: units that samples still to come depend on."""

    units_BT: Tensor
    frames_BT: Tensor  # their lengths; 0: not settled yet
    prosody_BTP: Tensor
    count_B: Tensor  # units in the window
    prosodic_B: Tensor  # 1: this stream came with prosody
    sent_B: Tensor  # frames of the window whose samples have been given


def init_chunks(reach: Reach, slots: int, *, prosody: int, device: torch.device | str = "cpu") -> ChunkState:
    """Empty windows; `prosody` is the number of prosody values a unit may have."""

    def whole(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.int64, device=device)

    return ChunkState(
        units_BT=whole(slots, reach.capacity),
        frames_BT=whole(slots, reach.capacity),
        prosody_BTP=torch.zeros(slots, reach.capacity, prosody, device=device),
        count_B=whole(slots),
        prosodic_B=whole(slots),
        sent_B=whole(slots),
    )


def vocode(
    renderer: Renderer,
    units_BT: Tensor,
    counts_B: Tensor,
    state: ChunkState,
    live_B: Tensor,
    final_B: Tensor,
    prosody_BTP: Tensor | None = None,
    *,
    independent: bool = False,
) -> tuple[Tensor, Tensor]:
    """`Vocoder.forward` for any `Renderer`; changes `state` in place.

    Args:
        independent: render each call's units alone, without context and without look-ahead.
    Raises:
        ShapeError: counts or units out of range, or a stream that has prosody in some chunks only.
    """
    B, T = units_BT.shape
    if int(torch.where(live_B, counts_B, 0).max()) > T:
        raise ShapeError(f"vocoder: counts {counts_B.tolist()} exceed the {T} units given")
    rows = []
    for slot in range(B):
        count = int(counts_B[slot]) if live_B[slot] else 0
        units_T = units_BT[slot, :count]
        prosody_TP = None if prosody_BTP is None else prosody_BTP[slot, :count]
        _check(renderer, units_T)
        if not live_B[slot] or (count == 0 and not final_B[slot]):
            audio_N = torch.zeros(0, device=units_BT.device)
        elif independent:
            audio_N = _render(renderer, units_T, _frames(renderer, units_T, prosody_TP), prosody_TP)
        else:
            audio_N = _next(renderer, units_T, prosody_TP, state, slot, final=bool(final_B[slot]))
        rows.append(audio_N.float())
    samples_B = torch.tensor([len(audio_N) for audio_N in rows], device=units_BT.device)
    return pad_sequence(rows, batch_first=True), samples_B


def _check(renderer: Renderer, units_T: Tensor) -> None:
    wrong_T = units_T[(units_T < 0) | (units_T >= renderer.num_units)]
    if len(wrong_T):
        raise ShapeError(
            f"vocoder: units must be 0 to {renderer.num_units - 1}, got {wrong_T[0]}. "
            "Drop the blanks (nn.ctc.collapse), or use the vocoder of these units."
        )


def _frames(renderer: Renderer, units_T: Tensor, prosody_TP: Tensor | None) -> Tensor:
    if len(units_T) == 0:
        return units_T
    return renderer.frames(units_T, prosody_TP).clamp(min=1)


def _render(renderer: Renderer, units_T: Tensor, frames_T: Tensor, prosody_TP: Tensor | None) -> Tensor:
    if len(units_T) == 0:
        return torch.zeros(0, device=units_T.device)
    return renderer.render(units_T, frames_T, prosody_TP)


def _next(
    renderer: Renderer, units_T: Tensor, prosody_TP: Tensor | None, state: ChunkState, slot: int, *, final: bool
) -> Tensor:
    """Adds units to one slot's window, gives the samples that are settled now, and drops what is no longer needed."""
    reach, held, sent = renderer.reach, int(state.count_B[slot]), int(state.sent_B[slot])
    if held and len(units_T) and (prosody_TP is not None) != bool(state.prosodic_B[slot]):
        raise ShapeError("vocoder: a stream needs prosody in all of its chunks or in none")
    prosodic = prosody_TP is not None if len(units_T) else bool(state.prosodic_B[slot])
    units_T = torch.cat([state.units_BT[slot, :held], units_T])
    known_T = torch.cat([state.frames_BT[slot, :held], torch.zeros_like(units_T[held:])])
    if prosodic:
        new_TP = state.prosody_BTP[slot, :0] if prosody_TP is None else prosody_TP
        prosody_TP = torch.cat([state.prosody_BTP[slot, :held], new_TP.to(state.prosody_BTP)])
    frames_T = torch.where(known_T > 0, known_T, _frames(renderer, units_T, prosody_TP))
    settled = len(units_T) if final else max(0, len(units_T) - reach.neighbours)
    ends_T = frames_T[:settled].cumsum(0)
    total = int(ends_T[-1]) if settled else 0
    ready = total if final else max(sent, total - reach.after)
    audio_N = torch.zeros(0, device=units_T.device)
    if ready > sent:
        window_TP = prosody_TP[:settled] if prosody_TP is not None else None
        audio_N = _render(renderer, units_T[:settled], frames_T[:settled], window_TP)
        audio_N = audio_N[sent * renderer.hop : ready * renderer.hop]
    if final:
        state.reset(torch.arange(len(state.count_B), device=units_T.device) == slot)
        return audio_N
    drop = min(int((ends_T <= ready - reach.before).sum()), max(0, settled - reach.neighbours))
    gone = int(ends_T[drop - 1]) if drop else 0
    kept = len(units_T) - drop
    state.units_BT[slot, :kept] = units_T[drop:]
    state.frames_BT[slot] = 0
    state.frames_BT[slot, : settled - drop] = frames_T[drop:settled]
    if prosody_TP is not None:
        state.prosody_BTP[slot, :kept] = prosody_TP[drop:].detach()
    state.count_B[slot], state.sent_B[slot] = kept, ready - gone
    state.prosodic_B[slot] = int(prosodic)
    return audio_N
