from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from duologue.data.audio_augment import (
    Augmentation,
    AugmentConfig,
    active_rms,
    apply,
    augment,
    change_voice,
    draw,
    mu_law,
    room,
)
from duologue.data.noises import NOISES, make_noise
from duologue.errors import AudioError, ConfigError, DataError

RATE = 16_000


def vowel(seconds: float = 1.0, pitch: float = 150.0, formant: float = 700.0) -> np.ndarray:
    """Harmonics of `pitch` under one resonance."""
    t = np.arange(int(seconds * RATE)) / RATE
    harmonics = np.arange(1, int(7000 / pitch)) * pitch
    weights = np.exp(-0.5 * ((harmonics - formant) / 200) ** 2) + 0.01
    sound = (weights[:, None] * np.sin(2 * np.pi * harmonics[:, None] * t)).sum(0)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def pitch_of(audio: np.ndarray) -> float:
    middle = audio[len(audio) // 2 - 2048 : len(audio) // 2 + 2048]
    correlation = np.correlate(middle, middle, "full")[4095:]
    return RATE / (40 + int(np.argmax(correlation[40:400])))


def centre_of(audio: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(audio[RATE // 4 : RATE // 2])) ** 2
    freq = np.fft.rfftfreq(RATE // 4, 1 / RATE)
    return float((power * freq).sum() / power.sum())


def test_the_same_draw_gives_the_same_samples():
    first, plan = augment(vowel(), rate=RATE, config=AugmentConfig(), rng=np.random.default_rng(5))
    again, plan_again = augment(vowel(), rate=RATE, config=AugmentConfig(), rng=np.random.default_rng(5))
    other, _ = augment(vowel(), rate=RATE, config=AugmentConfig(), rng=np.random.default_rng(6))
    assert plan == plan_again
    np.testing.assert_array_equal(first, again)
    assert len(other) != len(first) or not np.array_equal(other, first)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_survives_json_and_gives_the_same_sound(seed):
    plan = draw(AugmentConfig(telephone_chance=0.5, clip_chance=0.5), np.random.default_rng(seed))
    again = Augmentation.from_json(plan.to_json())
    assert again == plan
    audio = apply(vowel(0.4), plan, rate=RATE)
    assert audio.dtype == np.float32 and np.isfinite(audio).all() and np.abs(audio).max() <= 1
    np.testing.assert_array_equal(audio, apply(vowel(0.4), again, rate=RATE))


def test_no_augmentation_changes_no_sample():
    np.testing.assert_array_equal(apply(vowel(), Augmentation(), rate=RATE), vowel())


def test_speed_changes_the_length_and_not_the_pitch():
    fast = change_voice(vowel(2.0), rate=RATE, speed=1.25)
    assert len(fast) == pytest.approx(2 * RATE / 1.25, abs=2)
    assert pitch_of(fast) == pytest.approx(150, rel=0.03)


def test_pitch_moves_alone():
    high = change_voice(vowel(), rate=RATE, pitch=1.3)
    assert len(high) == pytest.approx(RATE, abs=2)
    assert pitch_of(high) == pytest.approx(195, rel=0.03)
    assert centre_of(high) == pytest.approx(centre_of(vowel()), rel=0.12)


def test_resonances_move_alone():
    child = change_voice(vowel(), rate=RATE, formant=1.2)
    assert pitch_of(child) == pytest.approx(150, rel=0.03)
    assert centre_of(child) / centre_of(vowel()) > 1.1


def test_any_rate_comes_out_at_16_kilohertz():
    import soxr

    at_24 = soxr.resample(vowel(), RATE, 24_000)
    assert len(change_voice(at_24, rate=24_000)) == pytest.approx(RATE, abs=2)


@pytest.mark.parametrize("decibels", [5.0, 20.0])
def test_noise_comes_at_the_asked_distance(decibels):
    clean = vowel()
    noisy = apply(clean, Augmentation(noise="hiss", noise_db=decibels), rate=RATE)
    found = 20 * np.log10(active_rms(clean) / np.std(noisy - clean))
    assert found == pytest.approx(decibels, abs=0.5)


def test_a_room_rings_on_after_the_speech():
    plan = Augmentation(reverb_seconds=0.5, reverb_direct_db=0.0, tail=0.3)
    dry = apply(vowel(), Augmentation(tail=0.3), rate=RATE)
    wet = apply(vowel(), plan, rate=RATE)
    assert np.std(dry[-3000:]) == 0 and np.std(wet[RATE + 200 : RATE + 1500]) > 1e-3
    response = room(0.5, 6.0, np.random.default_rng(0))
    assert 10 * np.log10(1 / np.square(response[1:]).sum()) == pytest.approx(6.0, abs=0.1)


def test_the_telephone_passes_its_band_only():
    hiss = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    power = np.abs(np.fft.rfft(apply(hiss, Augmentation(telephone=(300.0, 3400.0)), rate=RATE))) ** 2
    inside, outside = power[400:3300].mean(), max(power[4200:].mean(), power[:100].mean())
    assert outside < 0.01 * inside


def test_mu_law_is_as_fine_as_eight_bits():
    x = np.linspace(-1, 1, 20_001, dtype=np.float32)
    assert len(np.unique(mu_law(x))) <= 256
    assert np.abs(mu_law(x) - x).max() < 0.025
    assert np.abs(mu_law(x / 100) - x / 100).max() < 5e-4


def test_level_and_clipping():
    assert 20 * np.log10(active_rms(apply(vowel(), Augmentation(level_db=-20.0), rate=RATE))) == pytest.approx(
        -20, abs=0.2
    )
    clipped = apply(vowel(), Augmentation(clip=0.5), rate=RATE)
    assert np.abs(clipped).max() == pytest.approx(0.5 * np.abs(vowel()).max(), rel=1e-4)


def test_somebody_else_may_talk_in_the_background():
    plan = Augmentation(noise="speech", noise_db=10.0)
    other = apply(vowel(), plan, rate=RATE, voices=[vowel(0.5, pitch=230)])
    assert not np.array_equal(other, apply(vowel(), plan, rate=RATE, voices=[vowel(0.5, pitch=290)]))


@pytest.mark.parametrize("kind", list(NOISES))
@pytest.mark.parametrize("num_samples", [1, 777, 20_000])
def test_noises_have_the_asked_length_and_strength(kind, num_samples):
    sound = make_noise(kind, num_samples, np.random.default_rng(3))
    assert sound.shape == (num_samples,) and sound.dtype == np.float32 and np.isfinite(sound).all()
    np.testing.assert_array_equal(sound, make_noise(kind, num_samples, np.random.default_rng(3)))
    if num_samples > 1:
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(0 if kind == "silence" else 1, abs=1e-3)


@pytest.mark.parametrize("length", [0, 1, 100, 600])
def test_very_short_sounds_pass(length):
    plan = Augmentation(speed=1.2, pitch=0.9, reverb_seconds=0.3, noise="hum", noise_db=10.0, telephone=(300.0, 3400.0))
    assert np.isfinite(apply(np.zeros(length, np.float32), plan, rate=RATE)).all()


def test_wrong_input_is_refused():
    with pytest.raises(AudioError, match="finite mono"):
        apply(np.zeros((2, 100), np.float32), Augmentation(), rate=RATE)
    with pytest.raises(AudioError, match="finite mono"):
        apply(np.full(100, np.nan, np.float32), Augmentation(), rate=RATE)
    with pytest.raises(ConfigError, match="noise_chance"):
        AugmentConfig(noise_chance=1.5)
    with pytest.raises(ConfigError, match="speed"):
        AugmentConfig(speed=(1.2, 0.8))
    with pytest.raises(ConfigError, match="rain"):
        dataclasses.replace(AugmentConfig(), noises=("rain",))
    with pytest.raises(DataError, match="rain"):
        make_noise("rain", 10, np.random.default_rng(0))
