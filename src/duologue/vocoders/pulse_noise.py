"""Waveforms from pulses, noise and a spectrum a frame: the source-filter half of the spectral vocoder.

Each 12.5 ms frame has five spectra of 601 bins and a pitch:

    S = exp(harmonic) e^(i pi tanh(harmonic_phase)) P + exp(noise) Z + exp(free) e^(i free_phase)

where P is the spectrum of a train of band-limited unit pulses at the pitch and Z is complex Gaussian noise; overlap-add
of the inverse transforms gives the waveform. This form of harmonic-plus-noise synthesis is the one that hibari-tts
predicts (Apache-2.0). Streaming: pulses go on with their phase, and noise is read from a table by the number of the
frame, so that pieces equal the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duologue.streaming.state import State

SAMPLE_RATE = 24_000  # Hz
HOP = 300  # samples a frame
WINDOW = 4 * HOP
BINS = WINDOW // 2 + 1
PARTS = 5  # spectra a frame, in the order of the formula
HIGHEST = 11_000.0  # Hz: no harmonic above
LOUDEST = 7.0  # natural log of the largest amplitude of a bin
NOISE_FRAMES = 509  # length of the noise table, 6.4 s: long enough that nobody hears it repeat
DELAY = 4  # frames that have to follow before a frame's samples are settled
NO_END = 1 << 60  # a position that no stream reaches


@dataclass
class Line(State):
    """The last T steps of a sequence, so that the next chunk can look back at them."""

    tail_BTC: Tensor


def line(slots: int, steps: int, channels: int, like: Tensor, *, dtype: torch.dtype | None = None) -> Line:
    return Line(like.new_zeros(slots, steps, channels, dtype=dtype or torch.float32))


def extend(state: Line, x_BTC: Tensor, counts_B: Tensor) -> Tensor:
    """The kept steps followed by the new ones; then keeps the last ones of the first `counts_B` of each slot."""
    window_BTC = torch.cat([state.tail_BTC.to(x_BTC.dtype), x_BTC], dim=1)
    keep = state.tail_BTC.shape[1]
    if keep:
        index_BT = counts_B[:, None] + torch.arange(keep, device=x_BTC.device)
        rows_B1 = torch.arange(len(counts_B), device=x_BTC.device)[:, None]
        state.tail_BTC.copy_(window_BTC.detach()[rows_B1, index_BT])
    return window_BTC


def drop_first(x_BTC: Tensor, drop_B: Tensor, counts_B: Tensor) -> tuple[Tensor, Tensor]:
    """Moves each slot's steps `drop_B` to the left. Returns them and how many of them are left of `counts_B`."""
    left_B = (counts_B - drop_B).clamp(min=0)
    steps = int(left_B.max()) if len(left_B) else 0
    index_BT = (drop_B[:, None] + torch.arange(steps, device=x_BTC.device)).clamp(max=max(x_BTC.shape[1] - 1, 0))
    rows_B1 = torch.arange(len(drop_B), device=x_BTC.device)[:, None]
    return x_BTC[rows_B1, index_BT], left_B


def settled(position_B: Tensor, counts_B: Tensor, end_B: Tensor, delay: int) -> tuple[Tensor, Tensor]:
    """Of `counts_B` steps pushed from `position_B`, each out `delay` later: how many to drop, and where to stop.

    The steps that come out stand at position - delay and on; those before 0 or not before `end_B` are nobody's.
    """
    drop_B = torch.minimum((delay - position_B).clamp(min=0), counts_B)
    upto_B = torch.minimum(counts_B, (end_B - position_B + delay).clamp(min=0))
    return drop_B, torch.maximum(upto_B, drop_B)


def inside(position_B: Tensor, steps: int, end_B: Tensor, delay: int) -> Tensor:
    """Which of the steps that come out `delay` after `position_B` exist, [B, T]."""
    at_BT = position_B[:, None] - delay + torch.arange(steps, device=position_B.device)
    return (at_BT >= 0) & (at_BT < end_B[:, None])


@dataclass
class SourceState(State):
    position_B: Tensor  # frames pushed, int64
    phase_B1: Tensor  # of the pulse train, in turns, float64
    pitch: Line  # Hz and voicing of the last 2 frames
    pulses: Line  # the last 3 hops
    spectra: Line  # the last 2 frames
    overlap: Line  # 3 hops that later frames still add to


class PulseNoise(nn.Module):
    """Frames to samples, any number of slots, any chunks. Holds no weights, only constant tables."""

    window_N: Tensor
    noise_FK: Tensor

    def __init__(self):
        super().__init__()
        window_N = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(WINDOW, dtype=torch.float64) / WINDOW)
        self.register_buffer("window_N", window_N.float(), persistent=False)
        generator = torch.Generator().manual_seed(20_070)
        noise = torch.randn(NOISE_FRAMES, BINS, 2, generator=generator)
        self.register_buffer("noise_FK", torch.view_as_complex(noise), persistent=False)

    def init_state(self, slots: int) -> SourceState:
        like = self.window_N
        return SourceState(
            position_B=like.new_zeros(slots, dtype=torch.int64),
            phase_B1=like.new_zeros(slots, 1, dtype=torch.float64),
            pitch=line(slots, 2, 2, like, dtype=torch.float64),
            pulses=line(slots, 3, HOP, like),
            spectra=line(slots, 2, PARTS * BINS, like),
            overlap=line(slots, 3, HOP, like),
        )

    def forward(
        self, spectra_BFC: Tensor, f0_BF: Tensor, counts_B: Tensor, state: SourceState, end_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pushes the next `counts_B` frames of each slot.

        Args:
            spectra_BFC: the five spectra beside each other.
            f0_BF: Hz, 0 where unvoiced.
            end_B: number of frames of the whole stream where known, else NO_END. At the end push DELAY frames more, of
                any content, to get the rest.
        Returns:
            audio_BN and how many samples of it are settled.
        """
        steps, position_B = f0_BF.shape[1], state.position_B.clone()
        if steps == 0:
            return spectra_BFC.new_zeros(len(counts_B), 0), torch.zeros_like(counts_B)
        pulses_BFN = self._pulses(f0_BF, counts_B, state, end_B)
        shaped_BFC = extend(state.spectra, spectra_BFC, counts_B)[:, :steps]
        here_BF = inside(position_B, steps, end_B, 2)
        here_BF = here_BF & (torch.arange(steps, device=f0_BF.device) < counts_B[:, None])
        number_BF = position_B[:, None] - 2 + torch.arange(steps, device=f0_BF.device)
        frames_BFN = self._frames(shaped_BFC, pulses_BFN, number_BF) * here_BF[..., None]
        audio_BTN = self._overlap_add(frames_BFN, counts_B, state)
        state.position_B += counts_B
        drop_B, upto_B = settled(position_B, counts_B, end_B, DELAY)
        audio_BTN, hops_B = drop_first(audio_BTN, drop_B, upto_B)
        return audio_BTN.flatten(1), hops_B * HOP

    def _pulses(self, f0_BF: Tensor, counts_B: Tensor, state: SourceState, end_B: Tensor) -> Tensor:
        """Windows of the pulse train, [B, F, WINDOW], for the frames two before the pushed ones."""
        steps = f0_BF.shape[1]
        exists_BF = inside(state.position_B, steps, end_B, 0)
        f0_BF = torch.where(exists_BF, f0_BF, 0).double()
        pitch_BFC = extend(state.pitch, torch.stack([f0_BF, (f0_BF > 0).double()], dim=-1), counts_B)
        f0_BF, voiced_BF = pitch_BFC.unbind(-1)
        own, before, after = f0_BF[:, 1:-1, None], f0_BF[:, :-2, None], f0_BF[:, 2:, None]
        before, after = torch.where(before > 0, before, own), torch.where(after > 0, after, own)
        place_N = (torch.arange(HOP, device=f0_BF.device, dtype=torch.float64) + 0.5) / HOP - 0.5
        hz_BFN = own + (before - own) * (-place_N).clamp(min=0) + (after - own) * place_N.clamp(min=0)
        hz_BFN = torch.where(voiced_BF[:, 1:-1, None] > 0, hz_BFN, 0)
        turns_BN = state.phase_B1 + (hz_BFN / SAMPLE_RATE).flatten(1).cumsum(1)
        last_B1 = (counts_B * HOP - 1).clamp(min=0)[:, None]
        reached_B1 = torch.where(counts_B[:, None] > 0, turns_BN.gather(1, last_B1), state.phase_B1)
        state.phase_B1.copy_(reached_B1 % 1.0)
        pulses_BN = _pulse_train(turns_BN % 1.0, hz_BFN.flatten(1)).float()
        window_BFN = extend(state.pulses, pulses_BN.unflatten(1, (steps, HOP)), counts_B)
        return window_BFN.flatten(1).unfold(1, WINDOW, HOP)

    def _frames(self, spectra_BFC: Tensor, pulses_BFN: Tensor, number_BF: Tensor) -> Tensor:
        """The windowed waveform of each frame."""
        harmonic, harmonic_phase, noise, free, free_phase = spectra_BFC.float().chunk(PARTS, dim=-1)
        pulse_BFK = torch.fft.rfft(pulses_BFN * (self.window_N / HOP))
        sum_BFK = torch.polar(harmonic.clamp(max=LOUDEST).exp(), math.pi * harmonic_phase.tanh()) * pulse_BFK
        sum_BFK = sum_BFK + noise.clamp(max=LOUDEST).exp() * self.noise_FK[number_BF % NOISE_FRAMES]
        sum_BFK = sum_BFK + torch.polar(free.clamp(max=LOUDEST).exp(), free_phase)
        return torch.fft.irfft(sum_BFK, n=WINDOW) * (self.window_N / 1.5)  # four Hann windows squared add up to 1.5

    def _overlap_add(self, frames_BFN: Tensor, counts_B: Tensor, state: SourceState) -> Tensor:
        B, F, _ = frames_BFN.shape
        hops_BFKN = frames_BFN.view(B, F, 4, HOP)
        sum_BTN = torch.cat([state.overlap.tail_BTC, frames_BFN.new_zeros(B, F, HOP)], dim=1)
        for part in range(4):
            sum_BTN[:, part : part + F] += hops_BFKN[:, :, part]
        rows_B1 = torch.arange(B, device=counts_B.device)[:, None]
        state.overlap.tail_BTC.copy_(sum_BTN[rows_B1, counts_B[:, None] + torch.arange(3, device=counts_B.device)])
        return sum_BTN[:, :F]


def _pulse_train(turns_BN: Tensor, hz_BN: Tensor) -> Tensor:
    """Unit cosines at every multiple of the pitch below HIGHEST, the topmost faded in; 0 where there is no pitch.

    The sum over h of cos(h t) up to H is sin((H + 1/2) t) / (2 sin(t / 2)) - 1/2.
    """
    angle_BN = 2 * math.pi * turns_BN
    count_BN = HIGHEST / hz_BN.clamp(min=20.0)
    whole_BN = count_BN.floor()
    below_BN = 2 * torch.sin(angle_BN / 2)
    peak_BN = below_BN.abs() < 1e-7
    ratio_BN = torch.sin((whole_BN + 0.5) * angle_BN) / torch.where(peak_BN, 1.0, below_BN)
    train_BN = torch.where(peak_BN, whole_BN + 0.5, ratio_BN) - 0.5
    train_BN = train_BN + (count_BN - whole_BN) * torch.cos((whole_BN + 1) * angle_BN)
    return torch.where(hz_BN > 0, train_BN, 0.0)
