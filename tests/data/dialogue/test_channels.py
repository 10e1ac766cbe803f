"""The two sides of the line: levels, echo, noise, room and gain, each as it was drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from duologue.data.dialogue.channels import FRAME, Microphone, draw_microphone, mix
from duologue.data.dialogue.clips import RATE, Clip
from duologue.data.dialogue.config import ChannelConfig
from duologue.data.dialogue.timeline import BACKCHANNEL, TURN, Utterance
from duologue.errors import ConfigError

CONFIG = ChannelConfig()


def tone(seconds: float, hertz: float = 500.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def utterance(role: str, start: float, end: float, kind: str = TURN) -> Utterance:
    return Utterance(role=role, kind=kind, text="", start=start, end=end, words=[])


def mixed(microphone: Microphone = Microphone(), config: ChannelConfig = CONFIG) -> np.ndarray:  # noqa: B008
    """The assistant for 0.5 to 1.5 s, the user for 2 to 3 s and murmuring at 1."""
    said = [utterance("assistant", 0.5, 1.5), utterance("user", 1.0, 1.2, BACKCHANNEL), utterance("user", 2.0, 3.0)]
    clips = [Clip(tone(each.end - each.start), ()) for each in said]
    rng = np.random.default_rng(0)
    return mix(said, clips, seconds=4.01, microphone=microphone, config=config, rng=rng)


def decibels(audio_N, start, end) -> float:
    piece = audio_N[round(start * RATE) : round(end * RATE)].astype(np.float64)
    return float(10 * np.log10(np.mean(piece**2) + 1e-20))


def test_each_side_is_on_its_channel_at_its_level_in_whole_frames():
    audio_CN = mixed()
    assert audio_CN.dtype == np.float32 and audio_CN.shape == (2, 51 * FRAME)
    assert decibels(audio_CN[0], 0.5, 1.5) == pytest.approx(CONFIG.assistant_db, abs=0.1)
    assert decibels(audio_CN[1], 2.0, 3.0) == pytest.approx(CONFIG.user_db, abs=0.1)
    low, high = CONFIG.backchannel_db
    assert CONFIG.user_db + low <= decibels(audio_CN[1], 1.0, 1.2) <= CONFIG.user_db + high
    assert not audio_CN[0, round(1.5 * RATE) :].any() and not audio_CN[1, :RATE].any()


def test_the_echo_is_the_assistant_later_and_fainter_in_the_users_microphone_only():
    clean, heard = mixed(), mixed(Microphone(echo_gain=0.2, echo_delay=0.25))
    np.testing.assert_array_equal(clean[0], heard[0])
    delay = round(0.25 * RATE)
    np.testing.assert_allclose((heard - clean)[1, delay:], 0.2 * clean[0, :-delay], atol=1e-6)


def test_noise_is_as_loud_as_was_drawn_and_stays_where_it_is():
    microphone = Microphone(noise="hiss", noise_db=-10.0, seed=3)
    noise = (mixed(microphone) - mixed())[1]
    assert decibels(noise, 0, 4) == pytest.approx(CONFIG.user_db - 10, abs=0.5)
    np.testing.assert_array_equal(mixed(microphone), mixed(microphone))


def test_noise_with_gaps_comes_and_goes():
    levels = []
    for seed in range(6):
        noise = (mixed(Microphone(noise="hiss", noise_gaps=True, seed=seed)) - mixed())[1]
        levels += [decibels(noise, at, at + 0.1) for at in np.arange(0, 4, 0.1)]
    assert min(levels) < -100 and max(levels) > CONFIG.user_db - 3


def test_gain_moves_the_users_channel_and_clips():
    clean, loud = mixed(), mixed(Microphone(gain_db=40.0))
    np.testing.assert_allclose(mixed(Microphone(gain_db=-6.0))[1], clean[1] * 10**-0.3, atol=1e-6)
    assert np.abs(loud[1]).max() == 1.0 and np.array_equal(loud[0], clean[0])


def test_a_room_keeps_the_direct_sound_and_rings_after_it():
    clean, heard = mixed(), mixed(Microphone(reverb_seconds=0.5, reverb_direct_db=3.0, seed=1))
    assert decibels(clean[1], 3.05, 3.15) < -150 < -60 < decibels(heard[1], 3.05, 3.15)
    assert decibels(heard[1], 3.05, 3.15) > decibels(heard[1], 3.35, 3.45) + 6
    assert decibels(heard[1] - clean[1], 2.0, 3.0) < CONFIG.user_db + 3


def test_what_is_drawn_keeps_to_the_recipe_and_comes_as_often_as_stated():
    drawn = [draw_microphone(CONFIG, np.random.default_rng(seed)) for seed in range(600)]
    for test, chance in (
        (lambda m: m.gain_db != 0, CONFIG.gain_chance),
        (lambda m: m.noise != "", CONFIG.noise_chance),
        (lambda m: m.echo_delay > 0, CONFIG.echo_chance),
        (lambda m: m.reverb_seconds > 0, CONFIG.reverb_chance),
    ):
        assert sum(map(test, drawn)) == pytest.approx(600 * chance, abs=45)
    assert all(m.echo_gain <= 0.2 and (m.echo_delay == 0 or 0.1 <= m.echo_delay <= 0.5) for m in drawn)
    never = replace(CONFIG, gain_chance=0.0, noise_chance=0.0, echo_chance=0.0, reverb_chance=0.0)
    assert '"seed"' in draw_microphone(never, np.random.default_rng(0)).to_json() and Microphone().to_json() == "{}"


def test_a_wrong_recipe_is_named():
    for wrong in ({"echo_chance": 1.5}, {"noises": ("cows",)}, {"gain_db": (3.0, 1.0)}, {"echo_delay": (-1.0, 1.0)}):
        with pytest.raises(ConfigError, match="ChannelConfig"):
            ChannelConfig(**wrong)
