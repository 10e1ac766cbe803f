"""Sounds without speech are repeatable, in range, and of their kind."""

import numpy as np
import pytest

from duologue.eval import sounds


@pytest.mark.parametrize("kind", sounds.KINDS)
def test_a_clip_follows_from_its_number_alone(kind):
    first, second = sounds.clip(kind, seed=3, index=5), sounds.clip(kind, seed=3, index=5)
    np.testing.assert_array_equal(first.audio, second.audio)
    assert first.audio.dtype == np.float32
    assert 0.6 * 16_000 <= len(first.audio) <= 8 * 16_000
    assert np.isfinite(first.audio).all() and np.abs(first.audio).max() <= 1.0


def test_only_silence_is_silent():
    quiet = [kind for kind in sounds.KINDS if not np.abs(sounds.clip(kind, index=1).audio).max() > 0]
    assert quiet == ["silence"]


def test_clips_go_through_all_kinds_and_levels():
    found = sounds.clips(2 * len(sounds.KINDS))
    assert {clip.name for clip in found} == set(sounds.KINDS)
    loud = [np.sqrt(np.mean(clip.audio**2)) for clip in found if clip.name != "silence"]
    assert max(loud) / min(loud) > 10


def test_coloured_noises_fall_with_frequency_as_they_should():
    slopes = {}
    for kind in ("white noise", "pink noise", "brown noise"):
        audio = sounds.KINDS[kind](1 << 16, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
        hertz = np.fft.rfftfreq(len(audio), 1 / 16_000)
        bands = [power[(hertz > low) & (hertz < 2 * low)].mean() for low in (100, 200, 400, 800, 1600)]
        slopes[kind] = np.polyfit(range(5), 10 * np.log10(bands), 1)[0]  # dB an octave
    assert slopes["white noise"] == pytest.approx(0, abs=0.7)
    assert slopes["pink noise"] == pytest.approx(-3, abs=0.7)
    assert slopes["brown noise"] == pytest.approx(-6, abs=0.7)


def test_babble_is_made_of_the_voices_given_and_of_unit_level():
    rng = np.random.default_rng(0)
    voices = [np.sin(np.arange(4_000) / 5).astype(np.float32)]
    crowd = sounds.babble(voices, 8_000, rng)
    assert np.sqrt(np.mean(crowd**2)) == pytest.approx(1.0, abs=1e-3)
    spectrum = np.abs(np.fft.rfft(crowd))
    assert abs(int(spectrum.argmax()) - round(8_000 / (2 * np.pi * 5))) <= 2
