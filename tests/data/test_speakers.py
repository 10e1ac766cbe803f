from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from duologue.data import speakers
from duologue.data.speakers import Voice, choose_voice, default_voices, make_speaker, system_voices
from duologue.errors import ConfigError, DataError

FAKE = f"{sys.executable} {Path(__file__).with_name('fake_voice.py')}"
TONES = Voice(kind="command", name="tones", command=FAKE + " {out} {text}")


def test_a_command_speaks():
    audio = make_speaker(TONES).speak("two words; `touch x` $(y)", 1)  # no shell: nothing of it runs
    assert audio.dtype == np.float32 and len(audio) == 25 * 400
    assert 0.1 < np.abs(audio).max() <= 1


def test_a_text_that_looks_like_an_option_is_said():
    assert len(make_speaker(TONES).speak("-o x", 1)) == 5 * 400


def test_a_command_that_fails_says_so():
    with pytest.raises(DataError, match="cannot say that"):
        make_speaker(TONES).speak("unsayable", 1)
    quiet = dataclasses.replace(TONES, command=f"{sys.executable} -c pass {{out}}")
    with pytest.raises(DataError, match="wrote no file"):
        make_speaker(quiet).speak("hello", 1)


def test_a_missing_program_is_named():
    with pytest.raises(ConfigError, match="no-such-voice"):
        make_speaker(dataclasses.replace(TONES, command="no-such-voice {out}")).speak("hello", 1)


def test_what_a_kind_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="formant"):
        Voice(kind="espeak", name="x", formant=(0.9, 1.1))
    with pytest.raises(ConfigError, match="one of"):
        Voice(kind="parrot", name="x")
    with pytest.raises(ConfigError, match="command"):
        Voice(kind="flite", name="x", command="say {out}")
    with pytest.raises(ConfigError, match="0 < low <= high"):
        Voice(kind="hibari", name="x", pitch=(2.0, 1.0))
    with pytest.raises(ConfigError, match=r"\{out\}"):
        make_speaker(dataclasses.replace(TONES, command="say {text}"))


def test_rate_and_pitch_reach_the_program(monkeypatch):
    seen = []
    monkeypatch.setattr(speakers, "run_command", lambda command, *_, **__: seen.append(command) or np.zeros(1))
    make_speaker(Voice(kind="espeak", name="e", voice="en-gb+f2", speed=(2.0, 2.0), pitch=(2.0, 2.0))).speak("hi", 0)
    make_speaker(Voice(kind="flite", name="f", voice="rms", speed=(2.0, 2.0), pitch=(1.5, 1.5))).speak("hi", 0)
    espeak, flite = (" ".join(command) for command in seen)
    assert "-v en-gb+f2 -s 340 -p 85" in espeak
    assert "duration_stretch=0.5000" in flite and "int_f0_target_mean=150.00" in flite


def test_a_command_is_played_as_a_tape():
    slow, fast = (make_speaker(dataclasses.replace(TONES, speed=(speed, speed))) for speed in (1.0, 1.25))
    plain, higher = slow.speak("hello", 1), fast.speak("hello", 1)
    assert len(higher) == pytest.approx(len(plain) / 1.25, rel=0.01)

    def strongest(sound):
        return np.abs(np.fft.rfft(sound)).argmax() * slow.sample_rate / len(sound)

    assert strongest(higher) == pytest.approx(1.25 * strongest(plain), rel=0.03)
    drawn = make_speaker(dataclasses.replace(TONES, speed=(0.8, 1.25)))
    assert len({len(drawn.speak("hello", seed)) for seed in range(8)}) > 4
    assert np.array_equal(drawn.speak("hello", 3), drawn.speak("hello", 3))


def test_voices_are_drawn_by_weight_and_split():
    voices = (
        dataclasses.replace(TONES, name="often", weight=9.0, splits=("train",)),
        dataclasses.replace(TONES, name="seldom", weight=1.0),
    )
    rng = np.random.default_rng(0)
    drawn = [choose_voice(voices, "train", rng).name for _ in range(300)]
    assert 240 < drawn.count("often") < 295
    assert {choose_voice(voices, "test", rng).name for _ in range(20)} == {"seldom"}
    with pytest.raises(ConfigError, match="split 'dev'"):
        choose_voice(voices[:1], "dev", rng)


def test_every_voice_of_the_lists_has_a_name_and_a_licence():
    every = (*default_voices(), *system_voices())
    assert len({voice.name for voice in every}) == len(every)
    assert all(voice.licence for voice in every)
    assert all(make_speaker(voice).sample_rate >= 16_000 for voice in every)


def pitch_of(audio: np.ndarray, rate: int) -> float:
    """Median pitch over frames that have one."""
    found = []
    for start in range(0, len(audio) - 1200, 600):
        frame = audio[start : start + 1200]
        correlation = np.correlate(frame, frame, "full")[1199:]
        lag = rate // 400 + int(np.argmax(correlation[rate // 400 : rate // 60]))
        if frame.std() > 0.02 and correlation[lag] > 0.5 * correlation[0]:
            found.append(rate / lag)
    return float(np.median(found))


def test_hibari_is_one_person_or_another_and_always_the_same():
    woman = make_speaker(Voice(kind="hibari", name="woman"))
    man = make_speaker(Voice(kind="hibari", name="man", pitch=(0.55, 0.55), formant=(0.87, 0.87)))
    said, deep = woman.speak("Where are you now?", 3), man.speak("Where are you now?", 3)
    np.testing.assert_array_equal(said, woman.speak("Where are you now?", 3))
    assert len(said) == len(deep)
    assert pitch_of(deep, 24_000) / pitch_of(said, 24_000) == pytest.approx(0.55, rel=0.1)
    with pytest.raises(DataError, match="nothing to say"):
        woman.speak(" ", 3)
