"""Voice activity: the same numbers as the package that the weights come from, and turns with a beginning and an end."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import silero_vad
import torch

from duologue.audio.vad import WINDOW, Began, Ended, Endpointer, Goes, VoiceActivity
from duologue.errors import AudioError

WEIGHTS = Path(silero_vad.__file__).parent / "data"


@functools.cache
def model() -> VoiceActivity:
    return VoiceActivity.load()


def voice(seconds: float) -> np.ndarray:
    """A buzz with moving formants: enough of a voice for the network to say speech."""
    t = np.arange(round(seconds * 16_000)) / 16_000
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 2.3 * t)) / 16_000
    first, second = 500 + 250 * np.sin(2 * np.pi * 3.1 * t), 1500 + 500 * np.sin(2 * np.pi * 2.2 * t + 1)
    wave = np.zeros_like(t)
    for k in range(1, 30):
        hertz = k * (120 + 30 * np.sin(2 * np.pi * 2.3 * t))
        gain = np.exp(-(((hertz - first) / 120) ** 2)) + 0.6 * np.exp(-(((hertz - second) / 180) ** 2)) + 0.01
        wave += gain * np.sin(k * pitch)
    syllables = 0.15 + 0.85 * np.clip(np.sin(2 * np.pi * 4 * t), 0, 1)
    return (0.25 * wave / np.abs(wave).max() * syllables).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1e-4, round(seconds * 16_000)).astype(np.float32)


NAMES = {
    "stft_conv.weight": "stft.forward_basis_buffer",
    "lstm_cell.weight_ih": "decoder.rnn.weight_ih",
    "lstm_cell.weight_hh": "decoder.rnn.weight_hh",
    "lstm_cell.bias_ih": "decoder.rnn.bias_ih",
    "lstm_cell.bias_hh": "decoder.rnn.bias_hh",
    "final_conv.weight": "decoder.decoder.2.weight",
    "final_conv.bias": "decoder.decoder.2.bias",
    **{f"conv{i + 1}.{kind}": f"encoder.{i}.reparam_conv.{kind}" for i in range(4) for kind in ("weight", "bias")},
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:DeprecationWarning")
def test_probabilities_equal_the_published_network():
    audio = np.concatenate([silence(0.5), voice(1.5), silence(0.5)])
    windows = torch.from_numpy(audio[: len(audio) // WINDOW * WINDOW]).view(-1, WINDOW)
    reference = torch.jit.load(str(WEIGHTS / "silero_vad.jit"))  # another training of it: give it our weights
    theirs = reference.state_dict()
    for name, value in model().state_dict().items():
        theirs[f"_model.{NAMES[name]}"].copy_(value)
    reference.reset_states()
    state = model().init_state(1)
    with torch.no_grad():
        want = torch.cat([reference(window[None], 16_000).flatten() for window in windows])
        got = torch.cat([model()(window[None], state) for window in windows])
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert got.max() > 0.8 and got[:10].max() < 0.3  # the test would say nothing on silence alone


def test_slots_are_isolated():
    one, other = torch.from_numpy(voice(0.5))[: 15 * WINDOW].view(15, WINDOW), torch.randn(15, WINDOW) * 0.1
    alone, both = model().init_state(1), model().init_state(2)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(model()(torch.stack([a, b]), both)[:1], model()(a[None], alone))


@pytest.mark.parametrize("chunk", [160, 512, 4_000, 100_000])
def test_a_turn_begins_with_what_came_before_and_ends_after_silence(chunk):
    audio = np.concatenate([silence(2.0), voice(2.0), silence(1.5)])
    endpointer, events = Endpointer(model()), []
    for begin in range(0, len(audio), chunk):
        events += endpointer.push(audio[begin : begin + chunk])
    kinds = [type(event) for event in events]
    assert kinds.count(Began) == kinds.count(Ended) == 1
    assert kinds[0] is Began and set(kinds[1:-1]) == {Goes} and kinds[-1] is Ended
    turn = np.concatenate([event.samples for event in events[:-1]])
    at = int(np.flatnonzero(audio == turn[0])[0])
    np.testing.assert_array_equal(audio[at : at + len(turn)], turn)  # no sample is lost or doubled
    assert 1.4 < at / 16_000 < 2.0  # a little before the voice
    assert 4.3 < (at + len(turn)) / 16_000 < 5.0  # after it, and the silence that ends a turn


def test_silence_begins_no_turn():
    assert Endpointer(model()).push(silence(3.0)) == []


def test_reset_is_fresh():
    endpointer = Endpointer(model())
    endpointer.push(voice(1.0))
    assert endpointer.speaking
    endpointer.reset()
    assert not endpointer.speaking and endpointer.push(silence(1.0)) == []


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(AudioError, match="pip install silero-vad"):
        VoiceActivity.load(tmp_path / "none.safetensors")
