"""Voice activity: the same numbers as the package that the weights come from, and real turns found with them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import silero_vad
import torch

from duologue.audio.vad import WINDOW, VoiceActivity, together
from duologue.errors import AudioError
from duologue.streaming.turns import Turn, TurnConfig, TurnDetector

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


def test_streams_together_give_what_each_gives_alone():
    streams = [np.concatenate([silence(0.3), voice(0.5)]), voice(0.8), silence(0.8)]
    windows = [list(audio[: 24 * WINDOW].reshape(24, WINDOW)) for audio in streams]
    states = [model().init_state(1) for _ in streams]
    alone = [model().init_state(1) for _ in streams]
    with torch.no_grad():
        for step in range(24):
            which = [0, 1, 2] if step % 3 else [2, 0]  # not all of them have a window each time
            got = together(model(), [windows[i][step] for i in which], [states[i] for i in which])
            want = [float(model()(torch.from_numpy(windows[i][step])[None], alone[i])) for i in which]
            np.testing.assert_allclose(got, want, atol=1e-5)


def turns(audio: np.ndarray) -> list[tuple[Turn, float]]:
    """What becomes of the user's turns, and when, in seconds."""
    detector, state, found = TurnDetector(TurnConfig(), window=WINDOW / 16_000), model().init_state(1), []
    for number, window in enumerate(audio[: len(audio) // WINDOW * WINDOW].reshape(-1, WINDOW), start=1):
        with torch.no_grad():
            turn = detector.step(together(model(), [window], [state])[0])
        if turn is not None:
            found.append((turn, number * WINDOW / 16_000))
    return found


def test_a_voice_between_silences_is_a_turn():
    found = turns(np.concatenate([silence(2.0), voice(2.0), silence(1.5)]))
    assert [turn for turn, _ in found] == [Turn.BEGAN, Turn.PAUSED, Turn.ENDED]
    began, _, ended = (at for _, at in found)
    assert 2.0 < began < 2.4 and 4.5 < ended < 5.0


def test_silence_is_no_turn():
    assert turns(silence(3.0)) == []


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(AudioError, match="pip install silero-vad"):
        VoiceActivity.load(tmp_path / "none.safetensors")
