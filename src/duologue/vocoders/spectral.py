"""Mini's vocoder: phonetic units with prosody to 24 kHz speech, by spectra a frame and pulse-and-noise synthesis.

Units pass through convolutions that see a few units ahead; a head guesses length, pitch and loudness of each, which the
caller's own prosody replaces where it is given. Each unit is then drawn out to its length in steps of 25 ms,
convolutions that see at most 75 ms ahead turn steps into frames, and `PulseNoise` turns frames into samples. A frame is
a point in a space of `rank` dimensions fitted to the teacher's full spectra (601 bins, amplitudes and phases), not a
mel spectrum: the smoothing of a mel scale limits the sound (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.streaming.state import State
from duologue.vocoders.pulse_noise import (
    BINS,
    DELAY,
    NO_END,
    PARTS,
    SAMPLE_RATE,
    Line,
    PulseNoise,
    SourceState,
    drop_first,
    extend,
    inside,
    line,
    settled,
)

FRAMES_PER_STEP = 2
PROSODY = 3  # log frames, log f0, log amplitude
TYPICAL = (1.3, 5.25, -4.5)  # of them, over speech
SPREAD = (0.6, 0.2, 1.5)
LONGEST = 160  # steps of one unit, 4 s


@dataclass(frozen=True, kw_only=True)
class SpectralVocoderConfig:
    """Shape of the vocoder. Defaults: mini's, with a look-ahead of 4 units and 75 ms."""

    num_units: int = 64
    sample_rate: int = SAMPLE_RATE  # Hz
    dim: int = 256
    unit_hidden: int = 512
    unit_kernel: int = 5
    unit_ahead: tuple[int, ...] = (
        1,
        1,
        1,
        1,
    )  # units that each block sees ahead; the prosody is guessed after half of them
    step_hidden: int = 768
    step_kernel: int = 7
    step_ahead: tuple[int, ...] = (1, 1, 1, 0, 0, 0)  # steps of 25 ms that each block sees ahead
    rank: int = 128  # dimensions of a frame
    independent_chunks: bool = False  # every chunk alone, as LLaMA-Omni was published: faster to write, worse to hear

    def __post_init__(self):
        if self.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"SpectralVocoderConfig: sample_rate is {SAMPLE_RATE} Hz, got {self.sample_rate}")
        if min(self.num_units, self.dim, self.unit_hidden, self.step_hidden, self.rank) < 1:
            raise ConfigError(f"SpectralVocoderConfig: sizes must be positive, got {self}")
        for name, ahead, kernel in (
            ("unit", self.unit_ahead, self.unit_kernel),
            ("step", self.step_ahead, self.step_kernel),
        ):
            if any(not 0 <= steps < kernel for steps in ahead):
                raise ConfigError(
                    f"SpectralVocoderConfig: {name}_ahead must lie within the kernel of {kernel}, got {ahead}"
                )


class AheadBlock(nn.Module):
    """ConvNeXt block over a stream: what comes out stands `ahead` steps before what went in.

    Source: ConvNeXt (Liu et al. 2022, arXiv:2201.03545), in one dimension.
    """

    def __init__(self, dim: int, *, hidden: int, kernel: int, ahead: int):
        super().__init__()
        self.kernel, self.ahead = kernel, ahead
        self.mix = nn.Parameter(torch.randn(kernel, dim) / math.sqrt(kernel))
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        nn.init.normal_(self.narrow.weight, std=0.5 / math.sqrt(hidden))

    def forward(self, x_BTD: Tensor, counts_B: Tensor, state: Line) -> Tensor:
        steps, left = x_BTD.shape[1], self.kernel - 1 - self.ahead
        window_BTD = extend(state, x_BTD, counts_B)
        mixed_BTD = window_BTD[:, :steps] * self.mix[0]
        for place in range(1, self.kernel):
            mixed_BTD = torch.addcmul(mixed_BTD, window_BTD[:, place : place + steps], self.mix[place])
        return window_BTD[:, left : left + steps] + self.narrow(F.gelu(self.widen(self.norm(mixed_BTD))))


@dataclass
class StackState(State):
    position_B: Tensor  # steps pushed, int64
    blocks: list[Line]


class AheadStack(nn.Module):
    """Blocks in a row; together they are `delay` steps behind."""

    def __init__(self, ahead: Sequence[int], *, dim: int, hidden: int, kernel: int):
        super().__init__()
        self.dim, self.delay = dim, sum(ahead)
        self.blocks = nn.ModuleList([AheadBlock(dim, hidden=hidden, kernel=kernel, ahead=steps) for steps in ahead])

    def init_state(self, slots: int, like: Tensor) -> StackState:
        lines = [line(slots, block.kernel - 1, self.dim, like) for block in self.blocks]  # type: ignore[operator, arg-type]
        return StackState(like.new_zeros(slots, dtype=torch.int64), lines)

    def forward(self, x_BTD: Tensor, counts_B: Tensor, state: StackState, end_B: Tensor, *, late: int = 0) -> Tensor:
        """Pushes `counts_B` steps of each slot, which stand `late` steps before the position of the stream."""
        for block, tail in zip(self.blocks, state.blocks, strict=True):
            exists_BT = inside(state.position_B, x_BTD.shape[1], end_B, late)
            x_BTD = block(x_BTD * exists_BT[..., None], counts_B, tail)
            late += int(block.ahead)  # type: ignore[arg-type]
        state.position_B += counts_B
        return x_BTD


@dataclass
class SpectralState(State):
    read: StackState
    given: Line  # prosody, and whether there is one, that waits for the first half of the unit blocks
    settle: StackState
    chosen: Line  # prosody that waits for the second half
    draw: StackState
    pitch: Line  # log f0 that waits for the step blocks
    source: SourceState


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What the network says of some frames, and of the prosody of the units that it read."""

    coefficients_BFR: Tensor  # in the frame's space, unit variance each
    voiced_BF: Tensor  # logit
    log_f0_BF: Tensor  # of Hz
    counts_B: Tensor  # frames that count
    end_B: Tensor  # frames of the whole stream where known, else NO_END


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the network says of some units."""

    hidden_BUD: Tensor
    prosody_BUP: Tensor  # given, or guessed
    guess_BUP: Tensor  # always guessed
    voiced_BU: Tensor  # logit: whether the guess has a pitch
    counts_B: Tensor


class SpectralVocoder(nn.Module):
    """Units and prosody to speech, under the Vocoder contract (vocoders/protocol.py)."""

    def __init__(self, config: SpectralVocoderConfig):
        super().__init__()
        self.config = config
        self.sample_rate, self.num_units = config.sample_rate, config.num_units
        dim, half = config.dim, len(config.unit_ahead) // 2
        unit = {"dim": dim, "hidden": config.unit_hidden, "kernel": config.unit_kernel}
        self.units = nn.Embedding(config.num_units, dim)
        self.read = AheadStack(config.unit_ahead[:half], **unit)
        self.guess = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, PROSODY + 1))
        self.prosody = nn.Linear(PROSODY + 1, dim)
        self.settle = AheadStack(config.unit_ahead[half:], **unit)
        self.place = nn.Linear(4, dim)
        self.draw = AheadStack(config.step_ahead, dim=dim, hidden=config.step_hidden, kernel=config.step_kernel)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, FRAMES_PER_STEP * (config.rank + 2))
        self.basis = nn.Parameter(torch.randn(PARTS * BINS, config.rank) / math.sqrt(config.rank))
        self.mean = nn.Parameter(torch.zeros(PARTS * BINS))
        self.source = PulseNoise()

    @property
    def unit_delay(self) -> int:
        """Units that must follow before a unit is drawn."""
        return self.read.delay + self.settle.delay

    def init_state(self, slots: int) -> SpectralState:
        like = self.mean
        return SpectralState(
            read=self.read.init_state(slots, like),
            given=line(slots, self.read.delay, PROSODY + 1, like),
            settle=self.settle.init_state(slots, like),
            chosen=line(slots, self.settle.delay, 2 * PROSODY + 1, like),
            draw=self.draw.init_state(slots, like),
            pitch=line(slots, self.draw.delay, 1, like),
            source=self.source.init_state(slots),
        )

    def forward(
        self,
        units_BT: Tensor,
        counts_B: Tensor,
        state: SpectralState,
        live_B: Tensor,
        final_B: Tensor,
        prosody_BTP: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `vocoders.protocol.Vocoder`. A slot that was final is a stream not begun when this returns.

        Raises:
            ShapeError: the shapes do not agree with the state or with each other, or a number is no unit.
        """
        self._check(units_BT, counts_B, state, prosody_BTP)
        counts_B, final_B = torch.where(live_B, counts_B, 0), final_B & live_B
        if self.config.independent_chunks:
            state, final_B = self.init_state(len(counts_B)), counts_B > 0
        reading = self.read_units(units_BT, counts_B, state, final_B, prosody_BTP)
        frames = self.draw_frames(reading, state, final_B)
        audio_BN, samples_B = self.sound(frames, state, final_B)
        if not self.config.independent_chunks:
            state.reset(final_B)
        return audio_BN, samples_B

    def _check(self, units_BT: Tensor, counts_B: Tensor, state: SpectralState, prosody_BTP: Tensor | None) -> None:
        slots, steps = len(state.read.position_B), units_BT.shape[1]
        if units_BT.shape[0] != slots or counts_B.shape != (slots,):
            raise ShapeError(
                f"SpectralVocoder: the state has {slots} slots, got units {tuple(units_BT.shape)} and "
                f"counts {tuple(counts_B.shape)}. Make the state for as many slots as rows."
            )
        if prosody_BTP is not None and prosody_BTP.shape != (slots, steps, PROSODY):
            raise ShapeError(
                f"SpectralVocoder: need {PROSODY} prosody numbers a unit, {(slots, steps, PROSODY)}, "
                f"got {tuple(prosody_BTP.shape)}"
            )
        used_BT = torch.arange(steps, device=units_BT.device) < counts_B[:, None]
        if int(counts_B.max()) > steps or (used_BT & ((units_BT < 0) | (units_BT >= self.num_units))).any():
            raise ShapeError(
                f"SpectralVocoder: need units from 0 to {self.num_units - 1} and counts up to {steps}. "
                "Drop CTC's blank before vocoding."
            )

    def read_units(
        self, units_BT: Tensor, counts_B: Tensor, state: SpectralState, final_B: Tensor, prosody_BTP: Tensor | None
    ) -> Reading:
        """The unit-rate half: what leaves it has seen its `unit_delay` following units, or the end."""
        position_B, delay = state.read.position_B.clone(), self.unit_delay
        end_B = torch.where(final_B, position_B + counts_B, NO_END)
        counts_B = counts_B + final_B * delay
        units_BT = _longer(units_BT, int(final_B.any()) * delay).clamp(0, self.num_units - 1)
        given_BTC = self.mean.new_zeros(*units_BT.shape, PROSODY + 1)
        if prosody_BTP is not None:
            given_BTC[:, : prosody_BTP.shape[1]] = F.pad(prosody_BTP, (0, 1), value=1.0)
        hidden_BUD = self.read(self.units(units_BT), counts_B, state.read, end_B)
        given_BUC = _delayed(state.given, given_BTC, counts_B)
        guess_BUC = self.guess(hidden_BUD).float()
        guess_BUP = guess_BUC[..., :PROSODY] * guess_BUC.new_tensor(SPREAD) + guess_BUC.new_tensor(TYPICAL)
        voiced_BU1 = guess_BUC[..., PROSODY:]
        free_BUP = torch.cat([guess_BUP[..., :1], guess_BUP[..., 1:2] * (voiced_BU1 > 0), guess_BUP[..., 2:]], dim=-1)
        prosody_BUP = torch.where(given_BUC[..., PROSODY:] > 0, given_BUC[..., :PROSODY], free_BUP.detach())
        hidden_BUD = hidden_BUD + self.prosody(_features(prosody_BUP).to(hidden_BUD.dtype))
        hidden_BUD = self.settle(hidden_BUD, counts_B, state.settle, end_B, late=self.read.delay)
        waiting_BUC = torch.cat([prosody_BUP, guess_BUP, voiced_BU1], dim=-1)
        chosen_BUC = _delayed(state.chosen, waiting_BUC, counts_B)
        drop_B, upto_B = settled(position_B, counts_B, end_B, delay)
        out_BUC, left_B = drop_first(torch.cat([hidden_BUD.float(), chosen_BUC], dim=-1), drop_B, upto_B)
        hidden_BUD, prosody_BUP, guess_BUP, voiced_BU1 = out_BUC.split([self.config.dim, PROSODY, PROSODY, 1], dim=-1)
        return Reading(
            hidden_BUD=hidden_BUD,
            prosody_BUP=prosody_BUP,
            guess_BUP=guess_BUP,
            voiced_BU=voiced_BU1[..., 0],
            counts_B=left_B,
        )

    def draw_frames(self, reading: Reading, state: SpectralState, final_B: Tensor) -> Frames:
        """Draws each unit out to its length and says what each frame is like."""
        hidden_BSD, log_f0_BS, steps_B = self._draw_out(reading)
        position_B, delay = state.draw.position_B.clone(), self.draw.delay
        end_B = torch.where(final_B, position_B + steps_B, NO_END)
        counts_B = steps_B + final_B * delay
        more = int(final_B.any()) * delay
        hidden_BSD = self.draw(_longer(hidden_BSD, more), counts_B, state.draw, end_B)
        log_f0_BSC = _delayed(state.pitch, _longer(log_f0_BS, more)[..., None], counts_B)
        out_BSC = self.head(self.norm(hidden_BSD)).float()
        B = len(out_BSC)
        out_BSC = torch.cat([out_BSC, log_f0_BSC], dim=-1)
        drop_B, upto_B = settled(position_B, counts_B, end_B, delay)
        out_BSC, left_B = drop_first(out_BSC, drop_B, upto_B)
        out_BSC, log_f0_BSC = out_BSC[..., :-1], out_BSC[..., -1:]
        out_BFC = out_BSC.reshape(B, -1, self.config.rank + 2)
        log_f0_BF = log_f0_BSC.expand(-1, -1, FRAMES_PER_STEP).reshape(B, -1)
        return Frames(
            coefficients_BFR=out_BFC[..., :-2],
            voiced_BF=out_BFC[..., -2],
            log_f0_BF=log_f0_BF + SPREAD[1] * out_BFC[..., -1],
            counts_B=left_B * FRAMES_PER_STEP,
            end_B=torch.where(final_B, end_B * FRAMES_PER_STEP, NO_END),
        )

    def _draw_out(self, reading: Reading) -> tuple[Tensor, Tensor, Tensor]:
        """Units to steps: hidden, log f0 of the unit (typical where unvoiced), steps of each slot."""
        prosody_BUP, U = reading.prosody_BUP, reading.hidden_BUD.shape[1]
        exists_BU = torch.arange(U, device=prosody_BUP.device) < reading.counts_B[:, None]
        steps_BU = (prosody_BUP[..., 0].clamp(max=10).exp() / FRAMES_PER_STEP).round().clamp(
            1, LONGEST
        ).long() * exists_BU
        upto_BU = steps_BU.cumsum(1)
        total_B = steps_BU.sum(1)
        step_BS = torch.arange(int(total_B.max()), device=prosody_BUP.device).expand(len(total_B), -1).contiguous()
        if not U or not step_BS.shape[1]:
            return reading.hidden_BUD[:, :0], prosody_BUP[:, :0, 1], total_B
        owner_BS = torch.searchsorted(upto_BU, step_BS, right=True).clamp(max=U - 1)
        length_BS = steps_BU.gather(1, owner_BS)
        since_BS = step_BS - (upto_BU - steps_BU).gather(1, owner_BS)
        until_BS = length_BS - 1 - since_BS
        length_BS = length_BS.clamp(min=1)
        place_BSC = torch.stack(
            [(since_BS + 0.5) / length_BS, length_BS.log(), since_BS.clamp(max=8) / 4, until_BS.clamp(max=8) / 4],
            dim=-1,
        )
        rows_B1 = torch.arange(len(total_B), device=owner_BS.device)[:, None]
        log_f0_BU = torch.where(prosody_BUP[..., 1] > 0, prosody_BUP[..., 1], TYPICAL[1])
        hidden_BSD = reading.hidden_BUD[rows_B1, owner_BS] + self.place(place_BSC)
        return hidden_BSD, log_f0_BU.gather(1, owner_BS), total_B

    def spectra(self, coefficients_BFR: Tensor) -> Tensor:
        """Points of the frame's space to the five spectra beside each other."""
        return F.linear(coefficients_BFR, self.basis, self.mean)

    def sound(self, frames: Frames, state: SpectralState, final_B: Tensor) -> tuple[Tensor, Tensor]:
        """Frames to samples in [-1, 1]; see `PulseNoise`."""
        f0_BF = torch.where(frames.voiced_BF > 0, frames.log_f0_BF.clamp(3.9, 6.6).exp(), 0.0)
        more = int(final_B.any()) * DELAY
        coefficients_BFR, f0_BF = _longer(frames.coefficients_BFR, more), _longer(f0_BF, more)
        counts_B = frames.counts_B + final_B * DELAY
        audio_BN, samples_B = self.source(self.spectra(coefficients_BFR), f0_BF, counts_B, state.source, frames.end_B)
        return audio_BN.clamp(-1, 1), samples_B


def _features(prosody_BUP: Tensor) -> Tensor:
    voiced_BU1 = (prosody_BUP[..., 1:2] > 0).to(prosody_BUP.dtype)
    scaled_BUP = (prosody_BUP - prosody_BUP.new_tensor(TYPICAL)) / prosody_BUP.new_tensor(SPREAD)
    scaled_BUP = torch.cat([scaled_BUP[..., :1], scaled_BUP[..., 1:2] * voiced_BU1, scaled_BUP[..., 2:]], dim=-1)
    return torch.cat([scaled_BUP.clamp(-6, 6), voiced_BU1], dim=-1)


def _longer(x_BT: Tensor, steps: int) -> Tensor:
    """More steps of zeros at the end of axis 1."""
    return x_BT if not steps else torch.cat([x_BT, x_BT.new_zeros(x_BT.shape[0], steps, *x_BT.shape[2:])], dim=1)


def _delayed(state: Line, x_BTC: Tensor, counts_B: Tensor) -> Tensor:
    """The steps that went in as many steps ago as `state` keeps. Gradients flow within the chunk."""
    return extend(state, x_BTC, counts_B)[:, : x_BTC.shape[1]]
