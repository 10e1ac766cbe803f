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
    room,
)
from duologue.data.codings import CODINGS, code, compress, mu_law, soft_clip
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
    plan = draw(
        AugmentConfig(telephone_chance=0.5, clip_chance=0.5, coding_chance=0.5, compress_chance=0.5),
        np.random.default_rng(seed),
    )
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


@pytest.mark.parametrize("kind", ["narrow", "mu-law", "adpcm", "transform"])
@pytest.mark.parametrize(("rate", "near"), [(7000.0, 13.0), (16_000.0, 10.0)])
def test_a_codec_keeps_its_band_and_loses_what_is_above(kind, rate, near):
    """`near`: decibels of the speech in the band over what the finest form of the codec changes there, at least."""
    clean = vowel(formant=500.0) + vowel(formant=1500.0)
    coded = code(clean, kind, rate=rate, detail=1.0)
    before, after = np.fft.rfft(clean), np.fft.rfft(coded)
    inside, above = slice(0, int(0.45 * rate)), slice(int(0.52 * rate), None)
    assert len(coded) == len(clean) and coded.dtype == np.float32
    assert np.square(np.abs(before[inside])).sum() > 10 ** (near / 10) * np.square(np.abs(after - before)[inside]).sum()
    if rate < RATE:
        assert np.square(np.abs(after[above])).sum() < 0.01 * np.square(np.abs(before[above])).sum()


@pytest.mark.parametrize("kind", ["mu-law", "adpcm", "transform"])
def test_a_coarser_codec_changes_more(kind):
    errors = [np.std(code(vowel(), kind, rate=RATE, detail=detail) - vowel()) for detail in (0.0, 0.5, 1.0)]
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2]


def test_a_coarse_transform_codec_leaves_holes_in_the_spectrum():
    hiss = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.01
    speech = vowel() + hiss
    frames = np.abs(np.fft.rfft(code(speech, "transform", rate=RATE, detail=0.0).reshape(-1, 400) * np.hanning(400)))
    clean = np.abs(np.fft.rfft(speech.reshape(-1, 400) * np.hanning(400)))
    assert (
        np.mean(frames[:, 100:] < 0.1 * clean[:, 100:]) > 0.5 > 10 * np.mean(frames[:, 10:25] < 0.1 * clean[:, 10:25])
    )


def test_an_automatic_gain_brings_loud_and_faint_together():
    loud, faint = vowel(1.0), vowel(1.0) * 0.1
    pressed = compress(np.concatenate([loud, faint]), threshold=0.005, ratio=4.0, release=0.1)
    levels = [20 * np.log10(np.std(part)) for part in (pressed[4000:12_000], pressed[20_000:28_000])]
    assert levels[0] - levels[1] == pytest.approx(20 / 4, abs=0.5)
    np.testing.assert_allclose(compress(faint, threshold=1.0, ratio=4.0, release=0.1), faint, rtol=1e-6)


def test_soft_clipping_bends_peaks_and_nothing_else():
    x = np.linspace(-3, 3, 601, dtype=np.float32)
    bent = soft_clip(x, 0.5)
    assert np.abs(bent).max() < 0.5 and (np.diff(bent) > 0).all()
    np.testing.assert_allclose(bent[295:306], x[295:306], rtol=1e-3)


def test_effects_are_drawn_as_often_as_asked_and_leave_the_others_as_they_were():
    without = AugmentConfig(coding_chance=0.0, compress_chance=0.0)
    always = AugmentConfig(coding_chance=1.0, compress_chance=1.0)
    for seed in range(20):
        plain = draw(without, np.random.default_rng(seed))
        both = draw(always, np.random.default_rng(seed))
        assert plain.coding == "" and plain.compress_ratio == 1 and both.coding and both.compress_ratio > 1
        fields = {name: getattr(plain, name) for name in ("compress_ratio", "compress_reach_db", "compress_release")}
        fields |= {name: getattr(plain, name) for name in ("ceiling_db", "coding", "coding_rate", "coding_detail")}
        assert dataclasses.replace(both, **fields) == plain


def test_a_crowd_is_made_of_the_voices_at_hand():
    plan = Augmentation(noise="crowd", noise_db=0.0)
    people = [vowel(0.7, pitch=pitch) for pitch in (110, 170, 240)]
    clean, crowd = vowel(), apply(vowel(), plan, rate=RATE, voices=people) - vowel()
    assert active_rms(crowd) == pytest.approx(active_rms(clean), rel=0.01)
    spectrum = np.square(np.abs(np.fft.rfft(crowd)))
    of_people = sum(
        spectrum[pitch * step - 3 : pitch * step + 4].sum() for pitch in (110, 170, 240) for step in range(1, 30)
    )
    assert of_people > 0.8 * spectrum.sum()
    assert not np.allclose(crowd, apply(vowel(), plan, rate=RATE) - vowel())


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
    for kind in CODINGS:
        plan = Augmentation(coding=kind, coding_rate=9000.0, coding_detail=0.3, compress_ratio=4.0, ceiling_db=6.0)
        assert apply(np.full(length, 0.1, np.float32), plan, rate=RATE).shape == (length,)


def test_wrong_input_is_refused():
    with pytest.raises(AudioError, match="finite mono"):
        apply(np.zeros((2, 100), np.float32), Augmentation(), rate=RATE)
    with pytest.raises(AudioError, match="finite mono"):
        apply(np.full(100, np.nan, np.float32), Augmentation(), rate=RATE)
    with pytest.raises(ConfigError, match="noise_chance"):
        AugmentConfig(noise_chance=1.5)
    with pytest.raises(ConfigError, match="speed"):
        AugmentConfig(speed=(1.2, 0.8))
    with pytest.raises(ConfigError, match="opus"):
        AugmentConfig(codings=("opus",))
    with pytest.raises(ConfigError, match="rain"):
        dataclasses.replace(AugmentConfig(), noises=("rain",))
    with pytest.raises(DataError, match="rain"):
        make_noise("rain", 10, np.random.default_rng(0))
