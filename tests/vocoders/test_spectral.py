"""The spectral vocoder: what it holds back, ragged slots, what it refuses. The contract itself: test_conformance.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from vocoding import say

from duologue import config
from duologue.errors import ConfigError, ShapeError
from duologue.vocoders.pulse_noise import BINS, DELAY, HOP, NO_END, PARTS, SAMPLE_RATE, PulseNoise
from duologue.vocoders.spectral import SpectralVocoder, SpectralVocoderConfig

TINY = SpectralVocoderConfig(num_units=9, dim=16, unit_hidden=24, step_hidden=24, rank=6)
UNITS = 23
BOTH = torch.tensor([True, True])
NONE = torch.tensor([False, False])


def build(**changes) -> SpectralVocoder:
    torch.manual_seed(0)
    vocoder = SpectralVocoder(replace(TINY, **changes)).eval().requires_grad_(False)
    vocoder.mean.fill_(-3.0)
    vocoder.head.bias[TINY.rank :: TINY.rank + 2] = 1.0  # most frames voiced
    return vocoder


@pytest.fixture(scope="module")
def vocoder() -> SpectralVocoder:
    return build()


@pytest.fixture(scope="module")
def spoken():
    torch.manual_seed(1)
    units_BT = torch.randint(9, (2, UNITS))
    log_f0_BT = torch.where(torch.rand(2, UNITS) < 0.7, 5.2 + 0.2 * torch.randn(2, UNITS), 0.0)
    prosody_BTP = torch.stack([2 * torch.rand(2, UNITS), log_f0_BT, torch.randn(2, UNITS) - 4], dim=-1)
    return units_BT, prosody_BTP


def test_sound_comes_before_the_end_and_only_the_look_ahead_is_held_back(vocoder, spoken):
    sizes = say(vocoder, spoken[0], [16, 7], spoken[1]).sizes
    for slot in range(2):
        steps_U = (spoken[1][slot, :, 0].exp() / 2).round().clamp(min=1).long()
        drawn = int(steps_U[: 16 - vocoder.unit_delay].sum()) - vocoder.draw.delay
        assert sizes[0][slot] == (2 * drawn - DELAY) * HOP > 0
        assert sizes[0][slot] + sizes[1][slot] == int(steps_U.sum()) * 2 * HOP


def test_a_final_slot_is_a_stream_not_begun(vocoder, spoken):
    state = say(vocoder, spoken[0], [12, 11], spoken[1]).state
    assert all(not tensor.any() for _, tensor in state.tensors())


def test_slots_of_different_lengths_do_not_touch(vocoder, spoken):
    """One slot idles, gets fewer units and ends first: each says what it says alone."""
    units_BT, prosody_BTP = spoken
    whole = say(vocoder, units_BT, [UNITS], prosody_BTP).audio
    state, pieces, at = vocoder.init_state(2), ([], []), [0, 0]
    script = [((8, 3), (True, True)), ((5, 9), (True, False)), ((10, 6), (True, True)), ((4, 14), (False, True))]
    for counts, live in script:
        rows = [slice(at[slot], at[slot] + counts[slot]) for slot in range(2)]
        units = torch.zeros(2, max(counts), dtype=torch.int64)
        prosody = torch.zeros(2, max(counts), 3)
        for slot in range(2):
            fill = units_BT[slot, rows[slot]]
            units[slot, : len(fill)], prosody[slot, : len(fill)] = fill, prosody_BTP[slot, rows[slot]]
            at[slot] += counts[slot] * live[slot]
        final_B = torch.tensor([live[slot] and at[slot] == UNITS for slot in range(2)])
        audio_BN, samples_B = vocoder(units, torch.tensor(counts), state, torch.tensor(live), final_B, prosody)
        for slot in range(2):
            assert live[slot] or samples_B[slot] == 0
            pieces[slot].append(audio_BN[slot, : samples_B[slot]])
    for slot in range(2):
        torch.testing.assert_close(torch.cat(pieces[slot]), whole[slot], atol=1e-5, rtol=0)


def test_independent_chunks_forget_each_other(spoken):
    vocoder, (units_BT, prosody_BTP) = build(independent_chunks=True), spoken
    pieces = say(vocoder, units_BT, [12, 11], prosody_BTP)
    alone = say(vocoder, units_BT[:, 12:], [11], prosody_BTP[:, 12:]).audio[0]
    whole, cut = say(build(), units_BT, [UNITS], prosody_BTP).audio[0], pieces.audio[0]
    torch.testing.assert_close(cut[pieces.sizes[0][0] :], alone)
    assert len(whole) == len(cut) and (whole - cut).abs().max() > 1e-3


def test_gradients_reach_every_weight(spoken):
    vocoder = build().train().requires_grad_(True)
    state = vocoder.init_state(2)
    reading = vocoder.read_units(spoken[0], torch.tensor([UNITS, UNITS]), state, BOTH, spoken[1])
    frames = vocoder.draw_frames(reading, state, BOTH)
    spectra = vocoder.spectra(frames.coefficients_BFR)
    parts = [spectra, frames.voiced_BF, frames.log_f0_BF, reading.guess_BUP, reading.voiced_BU]
    sum(part.square().sum() for part in parts).backward()
    assert [name for name, weight in vocoder.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_numbers_that_are_no_unit_and_wrong_shapes_are_refused(vocoder, spoken):
    state, counts_B = vocoder.init_state(2), torch.tensor([2, 2])
    with pytest.raises(ShapeError, match="units from 0 to 8"):
        vocoder(torch.tensor([[1, 9], [0, 0]]), counts_B, state, BOTH, NONE)
    with pytest.raises(ShapeError, match="prosody"):
        vocoder(spoken[0][:, :2], counts_B, state, BOTH, NONE, torch.zeros(2, 2, 2))
    with pytest.raises(ShapeError, match="slots"):
        vocoder(spoken[0][:1, :2], counts_B, state, BOTH, NONE)
    assert all(not tensor.any() for _, tensor in state.tensors())


def test_config_survives_json_and_refuses_what_cannot_be():
    assert config.from_dict(SpectralVocoderConfig, config.to_dict(TINY)) == TINY
    for wrong in ({"sample_rate": 16_000}, {"rank": 0}, {"unit_ahead": (5,)}):
        with pytest.raises(ConfigError):
            replace(TINY, **wrong)


def test_a_steady_pitch_gives_cosines_at_its_multiples():
    """Unit harmonics, no noise: the waveform is the sum of cosines that the formula promises."""
    frames, hertz = 60, 250.0
    spectra = torch.full((1, frames + DELAY, PARTS, BINS), -40.0)
    spectra[:, :, 1] = 0
    spectra[:, :, 0, : 620 // 20] = math.log(
        HOP
    )  # two harmonics are below 620 Hz; HOP is the spectrum of a unit cosine
    source = PulseNoise()
    count, end = torch.tensor([frames + DELAY]), torch.tensor([frames])
    f0_BF = torch.full((1, frames + DELAY), hertz)
    audio_BN, samples_B = source(spectra.flatten(2), f0_BF, count, source.init_state(1), end)
    assert int(samples_B) == frames * HOP
    middle = slice(10 * HOP, 50 * HOP)
    turns = hertz / SAMPLE_RATE * (torch.arange(frames * HOP, dtype=torch.float64) + 1)[middle]
    want = torch.cos(2 * torch.pi * turns) + torch.cos(4 * torch.pi * turns)
    torch.testing.assert_close(audio_BN[0, middle].double(), want, atol=0.02, rtol=0)


def test_a_stream_without_end_keeps_only_the_last_frames_back():
    source, spectra = PulseNoise(), torch.zeros(1, 9, PARTS * BINS)
    _, samples_B = source(spectra, torch.zeros(1, 9), torch.tensor([9]), source.init_state(1), torch.tensor([NO_END]))
    assert int(samples_B) == (9 - DELAY) * HOP
